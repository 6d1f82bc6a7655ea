"""An identity that ends or changes while a stream opens before WSGI, remembered or not."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask

from broadcast.actions import sessions, tokens, users
from broadcast.base.errors import TemporarilyUnavailable
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import credentials
from broadcast.streams.hub import HUB
from broadcast.streams.socket_transport import SocketTransport
from broadcast.web.core import limits
from tests.conftest import deliver_new_events
from tests.support.builders import load_actor
from tests.support.stream_visits import bearer, cookie


def end_session_of(app: Flask, headers: dict[str, str]) -> None:
    with app.app_context():
        sessions.end_sessions(load_actor("bob").user_id, by=SYSTEM, now=clock.now())


def disable_user(app: Flask, headers: dict[str, str]) -> None:
    with app.app_context():
        users.disable_user(load_actor("bob").user_id, by=SYSTEM, now=clock.now())


def revoke_token(app: Flask, headers: dict[str, str]) -> None:
    with app.app_context():
        token_hash = tokens.hash_token(headers["Authorization"].removeprefix("Bearer "))
        tokens.revoke_token(credentials.find_by_api_token(token_hash).id, by=SYSTEM, now=clock.now())


ENDINGS = [(cookie, end_session_of), (cookie, disable_user), (bearer, disable_user), (bearer, revoke_token)]


@pytest.mark.parametrize(("sign_in", "end"), ENDINGS)
@pytest.mark.parametrize("is_delivered", [False, True])
def test_remembered_identity_that_has_ended_opens_nothing(app, client, visit, sign_in, end, is_delivered):
    """Whether or not this worker has heard of it yet."""
    client()
    headers = sign_in(app)
    with app.app_context():
        users.set_roles(load_actor("charlie").user_id, ["ops"], by=SYSTEM, now=clock.now())
    for _ in range(2):
        deliver_new_events(app)
        assert visit(app, headers).events == ["CONNECTED"]
    end(app, headers)
    if is_delivered:
        deliver_new_events(app)
    opened = HUB.of(app).counters["opened"]
    assert visit(app, headers) is None
    assert len(HUB.of(app)) == (0 if is_delivered else 2)
    assert HUB.of(app).counters["opened"] - opened <= 1


@pytest.mark.parametrize(("sign_in", "end"), ENDINGS)
def test_identity_that_ends_between_the_look_and_the_hand_over_opens_nothing(
    app, client, visit, monkeypatch, sign_in, end
):
    client()
    headers = sign_in(app)
    assert visit(app, headers).events == ["CONNECTED"]
    count = limits.may_open_stream

    def end_first(*args: Any) -> bool:
        end(app, headers)
        return count(*args)

    monkeypatch.setattr(limits, "may_open_stream", end_first)
    assert visit(app, headers) is None


def test_role_that_changed_elsewhere_is_seen_before_it_is_delivered(app, client, visit):
    client()
    headers = bearer(app)
    for _ in range(2):
        assert visit(app, headers).events == ["CONNECTED"]
    with app.app_context():
        users.set_roles(load_actor("bob").user_id, ["sales"], by=SYSTEM, now=clock.now())
    visit(app, headers)
    assert HUB.of(app).connections[-1].viewer.roles == {"sales"}


def test_remembered_session_ends_when_it_is_idle_or_old(make_app, client, visit):
    client()
    app = make_app(session_idle_hours=1, session_max_hours=2)
    with time_machine.travel("2026-06-01T09:00:00Z", tick=False) as traveller:
        headers = cookie(app)
        assert visit(app, headers).events == ["CONNECTED"]
        traveller.shift(timedelta(hours=1, seconds=1))
        assert visit(app, headers) is None


def test_database_that_does_not_answer_leaves_the_request_to_flask(app, client, visit, monkeypatch):
    client()
    headers = bearer(app)

    def fail(_token_hash: str) -> None:
        raise TemporarilyUnavailable

    monkeypatch.setattr(credentials, "find_by_api_token", fail)
    assert visit(app, headers) is None
    assert len(HUB.of(app)) == 0


def test_worker_without_a_descriptor_left_leaves_the_request_to_flask(app, client, visit, monkeypatch):
    client()

    def refuse(*_: Any) -> int:
        raise OSError("too many open files")

    monkeypatch.setattr(SocketTransport, "_register_duplicate", refuse)
    assert visit(app, bearer(app)) is None
    assert len(HUB.of(app)) == 0
