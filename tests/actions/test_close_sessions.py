"""A broadcast to chosen people may sign them out everywhere, once they have been told why."""

from datetime import timedelta

import pytest

from broadcast.actions import broadcasts
from broadcast.actions import users as actions
from broadcast.base.errors import Forbidden, Invalid
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.events import EVERY_SESSION, EventType
from broadcast.domain.permissions import Permission
from broadcast.store import log, users
from broadcast.worker.scheduler import tick
from tests.acts import Reader, a_message, actor, count_rows, send, to_people, to_role
from tests.conftest import tail
from tests.web.doors import bearer

NOW = clock.now()
SIGN_OUT = to_people("bob", "charlie", closeSessions=True)


def open_sessions(username: str) -> int:
    return len(users.open_sessions(actor(username).user_id))


def test_chosen_people_are_told_then_signed_out_and_nobody_else(app, client):
    """Pages and programs alike; the message is in the inbox of those who come back."""
    alice, bob = client("alice"), client("bob")
    page = Reader(bob.http, "/inbox/stream")
    program = Reader(app.test_client(), headers=bearer(app, "bob", ["inbox"]))
    other = Reader(alice.http)
    for stream in (page, program, other):
        stream.until("CONNECTED")
    response = alice.send("POST", "/api/admin/broadcasts", SIGN_OUT)
    assert (response.status_code, response.json["closeSessions"]) == (201, True)
    tail(app)
    for stream in (page, program):
        assert [stream.next().event for _ in range(2)] == ["MESSAGE", "SIGNED_OUT"]
        assert stream.next() is None
    assert len(app.extensions["hub"]) == 1
    other.close()
    assert bob.get("/inbox").status_code == 303
    assert alice.get("/inbox").status_code == 200
    assert f'id="card-{response.json["id"]}"' in client("bob").get("/inbox").get_data(as_text=True)


def test_it_is_one_event_whatever_the_number_of_people(cast):
    send(cast["alice"], SIGN_OUT)
    message, ended = log.read(0)
    assert [message.type, ended.type] == [EventType.MESSAGE, EventType.SESSION_ENDED]
    assert ended.audience == message.audience
    assert ended.payload == {"session": EVERY_SESSION}


def test_scheduled_one_signs_out_when_it_goes_out(app, client):
    client("bob")
    with app.app_context():
        send(actor("alice"), SIGN_OUT | {"scheduledAt": clock.to_wire(NOW + timedelta(hours=1))})
        assert open_sessions("bob") == 1
        tick(NOW + timedelta(hours=1))
        assert open_sessions("bob") == 0


@pytest.mark.parametrize("raw", [a_message(closeSessions=True), to_role("ops", closeSessions=True)])
def test_only_people_chosen_by_name_can_be_signed_out(cast, raw):
    before = count_rows()
    with pytest.raises(Invalid) as caught:
        send(cast["alice"], raw)
    assert set(caught.value.fields) == {"closeSessions"}
    assert count_rows() == before


def test_author_may_send_but_not_sign_out(cast):
    bob = cast["bob"]
    author = Actor(bob.user_id, bob.name, bob.roles, permissions=frozenset({Permission.WRITE}))
    assert send(author)
    with pytest.raises(Forbidden):
        send(author, SIGN_OUT)
    with pytest.raises(Forbidden):
        actions.end_sessions(cast["charlie"].user_id, by=author, now=NOW)


def test_recalled_one_signs_nobody_out(app, client):
    client("bob")
    with app.app_context():
        broadcast_id = send(actor("alice"), SIGN_OUT | {"draft": True})
        broadcasts.cancel(broadcast_id, reason="No", by=actor("alice"), now=NOW)
        assert open_sessions("bob") == 1


def test_revoked_token_ends_its_streams(app, client):
    client()
    program = Reader(app.test_client(), headers=bearer(app, "bob", ["inbox"]))
    program.until("CONNECTED")
    with app.app_context():
        [(token, _)] = users.tokens()
        actions.revoke_token(token.id, by=SYSTEM, now=NOW)
    tail(app)
    assert program.next().event == "SIGNED_OUT"
    assert program.next() is None
