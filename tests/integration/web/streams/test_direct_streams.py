"""Streams that open before WSGI: what this path answers it answers as Flask does, and what it leaves it leaves unread."""

import socket
from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask

from broadcast.actions import tokens
from broadcast.domain import clock
from broadcast.store import log
from broadcast.store.fast.credential_cache import CREDENTIAL_CACHE
from broadcast.streams.hub import HUB
from broadcast.web.core import limits, stream_admission
from broadcast.web.embed import tokens as embed_tokens
from broadcast.worker.runtime import RUNTIME
from tests.conftest import deliver_new_events
from tests.support.builders import load_actor, publish_message
from tests.support.stream_visits import ask_flask, bearer, cookie
from tests.support.users import BrowserClient

SITE = "https://intranet.example"


def embedded(app: Flask, *, origin: str = SITE, expires_in: int = 60) -> dict[str, str]:
    """The headers of a page of `origin`, which embeds Bob's inbox."""
    body = {"username": "bob", "origin": SITE}
    answer = app.test_client().post("/api/embed/tokens", json=body, headers=bearer(app, "alice", "embed"))
    with app.app_context():
        session_id, _ = embed_tokens.read(answer.json["token"])
        token = embed_tokens.sign(session_id, expires_at=clock.now() + timedelta(seconds=expires_in))
    return {"Authorization": f"Bearer {token}", "Origin": origin, "Sec-Fetch-Site": "cross-site"}


# ---- the same answer


ACCEPTED: dict[str, Callable[[Flask], dict[str, str]]] = {
    "token": bearer,
    "session": cookie,
    "embedded": embedded,
    "token, lower case": lambda app: {"authorization": bearer(app)["Authorization"].replace("Bearer", "bEARER")},
    "token beside a session": lambda app: cookie(app, "alice") | bearer(app),
    "token of an administrator": lambda app: bearer(app, "alice", "admin"),
    "same origin": lambda app: cookie(app) | {"Sec-Fetch-Site": "same-origin"},
    "typed address": lambda app: cookie(app) | {"Sec-Fetch-Site": "none"},
    "request id": lambda app: bearer(app) | {"X-Request-ID": "same-origin"},
    "other cookies": lambda app: {"Cookie": f"a=b; {cookie(app)['Cookie']}; broadcast=second"},
    "cursor": lambda app: bearer(app) | {"Last-Event-ID": "garbage"},
}


@pytest.mark.parametrize("path", ["/api/sse/connect", "/inbox/stream"])
@pytest.mark.parametrize("name", ACCEPTED)
def test_answer_is_the_one_of_flask(make_app, client, visit, name, path):
    client()
    app = make_app(embed_origins=[SITE])
    with app.app_context():
        publish_message(load_actor("alice"))
    deliver_new_events(app)
    headers = ACCEPTED[name](app)
    expected = ask_flask(app, headers, path=path)
    if expected.status != "HTTP/1.1 200 OK":  # an embedded inbox has no HTML stream
        assert visit(app, headers, path=path) is None
        return
    for _ in range(2):  # the second is answered from memory
        answer = visit(app, headers, path=path)
        assert answer is not None
        assert (answer.status, answer.headers, answer.unread) == (expected.status, expected.headers, b"")
        assert answer.events == expected.events
        assert "CONNECTED" in answer.events


REFUSED: dict[str, Callable[[Flask], dict[str, str]]] = {
    "nobody": lambda app: {},
    "unknown token": lambda app: {"Authorization": "Bearer bms_unknown"},
    "empty token": lambda app: {"Authorization": "Bearer "},
    "other scheme": lambda app: {"Authorization": "Basic Ym9iOng="},
    "token without the scope": lambda app: bearer(app, "bob", "events"),
    "bad token beside a session": lambda app: cookie(app) | {"Authorization": "Bearer x"},
    "unsigned embed token": lambda app: {"Authorization": "Bearer bme_WzEsMV0.x", "Origin": SITE},
    "embed token of another site": lambda app: embedded(app, origin="https://evil.example"),
    "embed token without a site": lambda app: {"Authorization": embedded(app)["Authorization"]},
    "expired embed token": lambda app: embedded(app, expires_in=-1),
    "unsigned session": lambda app: {"Cookie": "broadcast=eyJ0b2tlbiI6IngifQ.x.y"},
    "unknown session": lambda app: cookie(app, token="x" * 40),
    "token of a session as a bearer": lambda app: {"Authorization": f"Bearer {read_session_token(app)}"},
    "other site": lambda app: bearer(app) | {"Sec-Fetch-Site": "cross-site"},
    "neighbouring site": lambda app: cookie(app) | {"Sec-Fetch-Site": "same-site"},
    "other host": lambda app: bearer(app) | {"Host": "evil.example"},
}


def read_session_token(app: Flask) -> str:
    """The token of a session whose stream is open, so that this worker remembers it."""
    http = BrowserClient.for_user(app, "bob").http
    with http.session_transaction() as session:
        with app.app_context():
            assert CREDENTIAL_CACHE.of(app).find_by_session_token(tokens.hash_token(session["token"]))
        return session["token"]


@pytest.mark.parametrize("path", ["/api/sse/connect", "/inbox/stream"])
@pytest.mark.parametrize("name", REFUSED)
def test_who_is_refused_is_refused_by_flask(make_app, client, visit, name, path):
    client()
    app = make_app(embed_origins=[SITE], trusted_hosts=["localhost"])
    headers = REFUSED[name](app)
    assert visit(app, headers, path=path) is None
    assert "CONNECTED" not in ask_flask(app, headers, path=path).events
    assert len(HUB.of(app)) == 0


@pytest.mark.parametrize("query", ["userId=1000000", "userId=", "&".join(["a=1"] * 201)])
def test_query_that_flask_refuses_is_left_to_it(app, client, visit, query):
    client()
    assert visit(app, bearer(app), path=f"/api/sse/connect?{query}") is None


def test_session_that_flask_must_change_is_left_to_it(app, client, visit):
    """It binds the CSRF token of an old session to its user, in a cookie."""
    client()
    assert visit(app, cookie(app, without="csrf_token")) is None


def test_label_and_cursor_of_the_query_are_read_as_flask_reads_them(app, client, visit):
    client()
    with app.app_context():
        head = log.get_head()
    path = f"/api/sse/connect?connectionId=first%20one%FF&connectionId=second&after={head}&userId"
    assert visit(app, bearer(app), path=path) is None  # an empty userId is nobody's
    answer = visit(app, bearer(app), path=path.removesuffix("&userId"))
    assert answer.events == ["CONNECTED"]
    [connection] = HUB.of(app).connections
    assert connection.label == "first one%FF"


# ---- where requests come from


@pytest.mark.parametrize(
    ("hops", "peer", "forwarded_for", "address"),
    [
        (0, ("10.0.0.9", 1), None, "10.0.0.9"),
        (0, ("10.0.0.9", 1), "1.1.1.1", "10.0.0.9"),
        (1, ("10.0.0.9", 1), "1.1.1.1", "1.1.1.1"),
        (1, ("10.0.0.9", 1), "6.6.6.6, 1.1.1.1", "1.1.1.1"),
        (2, ("10.0.0.9", 1), "6.6.6.6, 1.1.1.1, 2.2.2.2", "1.1.1.1"),
        (2, ("10.0.0.9", 1), "1.1.1.1", "10.0.0.9"),
        (1, ("10.0.0.9", 1), None, "10.0.0.9"),
        (1, ("10.0.0.9", 1), "", "10.0.0.9"),
        (1, ("10.0.0.9", 1), "1.1.1.1,", "1.1.1.1"),
        (1, ("10.0.0.9", 1), '"1.1.1.1"', "1.1.1.1"),
        (1, ("::1", 1, 0, 0), "2001:db8::1", "2001:db8::1"),
        (0, "", None, "unknown"),
        (1, b"", "1.1.1.1", "1.1.1.1"),
    ],
)
def test_address_is_the_one_of_flask(make_app, client, visit, hops, peer, forwarded_for, address):
    client()
    app = make_app(trusted_proxy_hops=hops)
    headers = bearer(app) | ({} if forwarded_for is None else {"X-Forwarded-For": forwarded_for})
    remote_address = peer[0] if isinstance(peer, tuple) else ""
    ask_flask(app, headers, peer=remote_address)
    [connection] = HUB.of(app).connections
    expected = connection.address
    HUB.of(app).close(connection, "left")
    assert visit(app, headers, peer=peer).events[-1] == "CONNECTED"
    [connection] = HUB.of(app).connections
    assert connection.address == expected == address


PROXY = {"proxy_sign_in_header": "X-Forwarded-User", "proxy_sign_in_from": ["127.0.0.1/32"], "trusted_proxy_hops": 1}


@pytest.mark.parametrize(
    ("sent", "peer", "by_proxy", "is_open"),
    [
        ("bob", "127.0.0.1", "", True),
        ("BOB ", "127.0.0.1", "yes", True),
        ("charlie", "127.0.0.1", "", False),
        ("charlie", "10.0.0.9", "", True),  # nobody trusts this peer
        (None, "127.0.0.1", "", True),
        (None, "127.0.0.1", "yes", False),
        ("bob", "10.0.0.9", "yes", False),
    ],
)
def test_session_ends_when_the_proxy_says_somebody_else(make_app, client, visit, sent, peer, by_proxy, is_open):
    client()
    app = make_app(**PROXY)
    headers = cookie(app, by_proxy=by_proxy) | ({} if sent is None else {"X-Forwarded-User": sent})
    answer = visit(app, headers, peer=(peer, 1))
    assert (answer is not None) == is_open
    assert ("CONNECTED" in ask_flask(app, headers, peer=peer).events) == is_open


# ---- limits


def test_limits_are_counted_once_on_both_paths(make_app, client, visit):
    client()
    app = make_app(ratelimit_enabled=True, limit_stream_per_user="2/minute")
    limits.limiter.reset()
    headers = bearer(app)
    assert visit(app, headers).events == ["CONNECTED"]
    assert ask_flask(app, headers).events == ["CONNECTED"]
    refused, expected = visit(app, headers), ask_flask(app, headers)
    assert refused.events == expected.events == ["BUSY"]
    assert (refused.status, refused.headers) == (expected.status, expected.headers)
    limits.limiter.reset()


@pytest.mark.parametrize(
    ("setting", "event"), [("streams_per_user", "CONNECTION_LIMIT_REACHED"), ("streams_per_worker", "BUSY")]
)
def test_too_many_streams_are_refused_as_by_flask(make_app, client, visit, setting, event):
    client()
    app = make_app(**{setting: 1})
    headers = bearer(app)
    assert visit(app, headers).events == ["CONNECTED"]
    refused, expected = visit(app, headers), ask_flask(app, headers)
    assert refused.events == expected.events == [event]
    assert (refused.status, refused.headers) == (expected.status, expected.headers)


def test_client_for_whom_no_slot_gets_free_is_told_when_to_return(app, client, visit, monkeypatch):
    client()
    monkeypatch.setattr(stream_admission, "_ADMISSION_TIMEOUT_SECONDS", 0.01)
    admission = stream_admission.STREAM_ADMISSION.of(app)
    while admission.acquire():
        pass
    assert visit(app, bearer(app)).events == ["BUSY"]


def test_stream_is_let_go_when_its_head_cannot_be_made(app, client, visit):
    client()

    def fail(response):
        raise RuntimeError("a header that cannot be made")

    app.after_request_funcs.setdefault(None, []).append(fail)
    assert visit(app, bearer(app)) is None
    assert len(HUB.of(app)) == 0


def test_client_that_leaves_before_its_refusal_disturbs_nothing(make_app, client, visit):
    client()
    app = make_app(streams_per_worker=1)
    headers = bearer(app)
    assert visit(app, headers).events == ["CONNECTED"]
    ours, theirs = socket.socketpair()
    theirs.close()
    request = f"GET /api/sse/connect HTTP/1.1\r\nHost: localhost\r\nAuthorization: {headers['Authorization']}\r\n\r\n"
    with ours:
        assert RUNTIME.of(app).direct_streams.try_answer(request.encode(), ours, ("127.0.0.1", 1))
