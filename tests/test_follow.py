"""What a signal did not tell, the database does: a person's streams hear of every change within seconds, without Redis too."""

from datetime import timedelta

import gevent
import pytest

from broadcast.actions import receipts as actions
from broadcast.domain import clock
from broadcast.streams.receipt_sync import Follow
from tests.acts import Reader, actor, send
from tests.cast import Client

NOW = clock.now()
SETTLED = timedelta(seconds=2)


@pytest.fixture
def stream(app, client):
    reader = Reader(client("bob").http)
    reader.until("CONNECTED")
    yield reader
    reader.close()


def archive_one(app) -> int:
    with app.app_context():
        broadcast_id = send(actor("alice"))
        return actions.archive([broadcast_id], by=actor("bob"), now=NOW).version


def test_lost_signal_is_made_good_by_a_look(app, stream):
    follow = Follow(app, app.extensions["hub"])
    version = archive_one(app)
    follow.look(NOW)  # the signal still has time
    follow.look(NOW + SETTLED)
    frame = stream.until("READ_RECEIPT")[-1]
    assert (frame.data["kind"], frame.data["ids"], frame.data["version"]) == ("missed", [], version)


def test_what_was_told_is_not_told_again(app, stream, monkeypatch):
    follow, sent = Follow(app, app.extensions["hub"]), []
    monkeypatch.setattr(app.extensions["hub"], "send_to_user", lambda user_id, data: sent.append(data))
    version = archive_one(app)
    with app.app_context():
        bob = actor("bob").user_id
    follow.hear(bob, "archived", [1], version)
    while not sent:
        gevent.sleep(0)
    for _ in range(3):
        follow.look(NOW + SETTLED)
    assert len(sent) == 1


def test_change_committed_late_is_still_found(app, stream):
    """A look that came between the moment of a change and its commit does not hide it."""
    follow = Follow(app, app.extensions["hub"])
    follow.look(NOW + timedelta(seconds=5))
    version = archive_one(app)
    follow.look(NOW + timedelta(seconds=6))
    assert stream.until("READ_RECEIPT")[-1].data["version"] == version


def test_connected_tells_the_version(app, client):
    client("bob")
    version = archive_one(app)
    reader = Reader(Client.of(app, "bob").http)
    assert reader.until("CONNECTED")[-1].data["version"] == version
    reader.close()
