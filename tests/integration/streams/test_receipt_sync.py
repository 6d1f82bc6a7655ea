"""Receipt sync reads what no signal delivered: a user's streams get every change within seconds, even without Redis."""

from datetime import timedelta

import gevent
import pytest

from broadcast.actions import receipts as actions
from broadcast.domain import clock
from broadcast.streams.hub import HUB
from broadcast.streams.receipt_sync import ReceiptSync
from tests.support.builders import load_actor, publish_message
from tests.support.stream_reader import StreamReader
from tests.support.users import BrowserClient

NOW = clock.now()
SETTLED = timedelta(seconds=2)


@pytest.fixture
def stream(app, client):
    reader = StreamReader(client("bob").http)
    reader.read_until("CONNECTED")
    yield reader
    reader.close()


def archive_one(app) -> int:
    with app.app_context():
        broadcast_id = publish_message(load_actor("alice"))
        return actions.archive([broadcast_id], by=load_actor("bob"), now=NOW).version


def test_lost_signal_is_made_good_by_a_look(app, stream):
    follow = ReceiptSync(app, HUB.of(app))
    version = archive_one(app)
    follow.send_missed(NOW)  # the signal still has time
    follow.send_missed(NOW + SETTLED)
    frame = stream.read_until("READ_RECEIPT")[-1]
    assert (frame.data["kind"], frame.data["ids"], frame.data["version"]) == ("missed", [], version)


def test_what_was_told_is_not_told_again(app, stream, monkeypatch):
    follow, sent = ReceiptSync(app, HUB.of(app)), []
    monkeypatch.setattr(HUB.of(app), "send_to_user", lambda user_id, data: sent.append(data))
    version = archive_one(app)
    with app.app_context():
        bob = load_actor("bob").user_id
    follow.handle_signal(bob, "archived", [1], version)
    while not sent:
        gevent.sleep(0)
    for _ in range(3):
        follow.send_missed(NOW + SETTLED)
    assert len(sent) == 1


def test_change_committed_late_is_still_found(app, stream):
    """A look that came between the moment of a change and its commit does not hide it."""
    follow = ReceiptSync(app, HUB.of(app))
    follow.send_missed(NOW + timedelta(seconds=5))
    version = archive_one(app)
    follow.send_missed(NOW + timedelta(seconds=6))
    assert stream.read_until("READ_RECEIPT")[-1].data["version"] == version


def test_connected_tells_the_version(app, client):
    client("bob")
    version = archive_one(app)
    reader = StreamReader(BrowserClient.for_user(app, "bob").http)
    assert reader.read_until("CONNECTED")[-1].data["version"] == version
    reader.close()
