"""A broadcast to chosen users may sign them out everywhere after they were told why."""

from datetime import timedelta

import pytest

from broadcast.actions import broadcasts, sessions, tokens
from broadcast.base.errors import Forbidden, Invalid
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.events import ALL_SESSIONS, EventType
from broadcast.domain.permissions import Permission
from broadcast.store import log, users
from broadcast.streams.hub import HUB
from broadcast.worker.scheduler import tick
from tests.conftest import deliver_new_events
from tests.support.builders import (
    build_message,
    build_role_message,
    build_user_message,
    count_rows,
    load_actor,
    publish_message,
)
from tests.support.routes import make_bearer_headers
from tests.support.stream_reader import StreamReader

NOW = clock.now()
SIGN_OUT = build_user_message("bob", "charlie", closeSessions=True)


def open_sessions(username: str) -> int:
    return len(users.list_open_sessions(load_actor(username).user_id))


def test_chosen_people_are_told_then_signed_out_and_nobody_else(app, client):
    """Pages and programs alike; the message is in the inbox of those who come back."""
    alice, bob = client("alice"), client("bob")
    page = StreamReader(bob.http, "/inbox/stream")
    program = StreamReader(app.test_client(), headers=make_bearer_headers(app, "bob", ["inbox"]))
    other = StreamReader(alice.http)
    for stream in (page, program, other):
        stream.read_until("CONNECTED")
    response = alice.send("POST", "/api/admin/broadcasts", SIGN_OUT)
    assert (response.status_code, response.json["closeSessions"]) == (201, True)
    deliver_new_events(app)
    for stream in (page, program):
        assert [stream.next_frame().event for _ in range(2)] == ["MESSAGE", "SIGNED_OUT"]
        assert stream.next_frame() is None
    assert len(HUB.of(app)) == 1
    other.close()
    assert bob.get("/inbox").status_code == 303
    assert alice.get("/inbox").status_code == 200
    assert f'id="card-{response.json["id"]}"' in client("bob").get("/inbox").get_data(as_text=True)


def test_it_is_one_event_whatever_the_number_of_people(cast):
    publish_message(cast["alice"], SIGN_OUT)
    message, ended = log.read_events(0)
    assert [message.type, ended.type] == [EventType.MESSAGE, EventType.SESSION_ENDED]
    assert ended.audience == message.audience
    assert ended.payload == {"session": ALL_SESSIONS}


def test_scheduled_one_signs_out_when_it_goes_out(app, client):
    client("bob")
    with app.app_context():
        publish_message(load_actor("alice"), SIGN_OUT | {"scheduledAt": clock.to_rfc3339(NOW + timedelta(hours=1))})
        assert open_sessions("bob") == 1
        tick(NOW + timedelta(hours=1))
        assert open_sessions("bob") == 0


@pytest.mark.parametrize("raw", [build_message(closeSessions=True), build_role_message("ops", closeSessions=True)])
def test_only_people_chosen_by_name_can_be_signed_out(cast, raw):
    before = count_rows()
    with pytest.raises(Invalid) as caught:
        publish_message(cast["alice"], raw)
    assert set(caught.value.fields) == {"closeSessions"}
    assert count_rows() == before


def test_author_may_send_but_not_sign_out(cast):
    bob = cast["bob"]
    author = Actor(bob.user_id, bob.name, bob.roles, permissions=frozenset({Permission.WRITE}))
    assert publish_message(author)
    with pytest.raises(Forbidden):
        publish_message(author, SIGN_OUT)
    with pytest.raises(Forbidden):
        sessions.end_sessions(cast["charlie"].user_id, by=author, now=NOW)


def test_recalled_one_signs_nobody_out(app, client):
    client("bob")
    with app.app_context():
        broadcast_id = publish_message(load_actor("alice"), SIGN_OUT | {"draft": True})
        broadcasts.cancel(broadcast_id, reason="No", by=load_actor("alice"), now=NOW)
        assert open_sessions("bob") == 1


def test_revoked_token_ends_its_streams(app, client):
    client()
    program = StreamReader(app.test_client(), headers=make_bearer_headers(app, "bob", ["inbox"]))
    program.read_until("CONNECTED")
    with app.app_context():
        [(token, _)] = users.list_tokens()
        tokens.revoke_token(token.id, by=SYSTEM, now=NOW)
    deliver_new_events(app)
    assert program.next_frame().event == "SIGNED_OUT"
    assert program.next_frame() is None
