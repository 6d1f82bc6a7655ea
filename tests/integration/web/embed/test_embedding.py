"""The embedded inbox: who gets a token, what it opens, who may read a response, and what ends it."""

import time
from datetime import timedelta

import pytest
import time_machine
from sqlalchemy import select

from broadcast.actions import accounts, sessions, tokens
from broadcast.actions import users as actions
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store.database import db
from broadcast.store.models import ApiToken, AuditEntry, UserSession
from broadcast.store.transactions import write_transaction
from broadcast.streams.hub import HUB
from broadcast.web.embed import tokens as embed_tokens
from tests.conftest import deliver_new_events
from tests.support.builders import build_user_message, count_rows, load_actor, publish_message
from tests.support.routes import build_route_path, get_route_method, make_bearer_headers
from tests.support.stream_reader import StreamReader
from tests.support.users import BrowserClient

SITE, OTHER, STRANGER = "https://intranet.example", "https://shop.example:8443", "https://evil.example"
OPEN = {  # what an embedded inbox may do; written here once more, so that a slip in the code is seen
    ("GET", "/api/sse/connect"),
    ("GET", "/api/user/messages"),
    ("GET", "/api/user/alerts"),
    ("GET", "/api/user/preferences"),
    ("POST", "/api/user/messages/read"),
    ("POST", "/api/user/messages/acknowledge"),
    ("POST", "/api/user/messages/dismiss"),
    ("POST", "/api/user/messages/read-all"),
}
ASKED = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}


@pytest.fixture
def app(make_app):
    return make_app(embed_origins=[SITE, OTHER])


@pytest.fixture
def site(app, client) -> dict[str, str]:
    """The headers of the site's server. The cast exists."""
    client()
    return make_bearer_headers(app, "alice", ["embed"])


def mint(app, site, username="bob", origin=SITE) -> str:
    body = {"username": username, "origin": origin}
    answer = app.test_client().post("/api/embed/tokens", json=body, headers=site)
    assert answer.status_code == 201, answer.json
    return answer.json["token"]


def page_of(origin, token) -> dict[str, str]:
    """The headers that a page of `origin` sends."""
    return {"Authorization": f"Bearer {token}", "Origin": origin, "Sec-Fetch-Site": "cross-site"}


def cors(response) -> dict[str, str]:
    return {name: value for name, value in response.headers if name.lower().startswith("access-control")}


def test_token_is_for_some_minutes_and_names_the_person(app, site):
    answer = app.test_client().post("/api/embed/tokens", json={"username": "Bob", "origin": SITE}, headers=site)
    assert (answer.status_code, answer.headers["Cache-Control"], cors(answer)) == (201, "no-store", {})
    assert 890 <= answer.json["expiresIn"] <= 900
    left = clock.parse_rfc3339(answer.json["expiresAt"]) - clock.now()
    assert timedelta(minutes=14) < left <= timedelta(minutes=15)
    with app.app_context():
        bobs = publish_message(load_actor("alice"), build_user_message("bob"))
        publish_message(load_actor("alice"), build_user_message("charlie"))
    read = app.test_client().get("/api/user/messages", headers=page_of(SITE, answer.json["token"]))
    assert [item["id"] for item in read.json["items"]] == [bobs]


def test_page_of_the_site_reads_marks_and_streams(app, site):
    headers = page_of(SITE, mint(app, site))
    with app.app_context():
        first, second = (
            publish_message(load_actor("alice"), build_user_message("bob", requiresAck=True)) for _ in range(2)
        )
    http = app.test_client()
    for path, body in [
        ("/api/user/messages/read", {"broadcastIds": [first]}),
        ("/api/user/messages/acknowledge", {"broadcastIds": [second]}),
        ("/api/user/messages/read-all", {}),
    ]:
        answer = http.post(path, json=body, headers=headers)
        assert (answer.status_code, cors(answer)) == (200, {"Access-Control-Allow-Origin": SITE})
        assert "Origin" in answer.vary
    assert answer.json["unread"] == 0
    with app.app_context():
        deliver_new_events(app)
    stream = StreamReader(http, headers=headers)
    stream.read_until("CONNECTED")
    with app.app_context():
        publish_message(load_actor("alice"), build_user_message("bob", title="Live"))
        deliver_new_events(app)
    assert stream.next_frame().data["title"] == "Live"
    assert cors(stream.response) == {"Access-Control-Allow-Origin": SITE}
    stream.close()


def test_token_opens_nothing_else_whatever_its_person_may(app, site, routes):
    """Route by route, for an administrator; what is refused writes nothing and invites nobody."""
    headers = page_of(SITE, mint(app, site, "alice"))
    with app.app_context():
        broadcast_id = publish_message(load_actor("alice"))
        before = count_rows()
    for rule in routes:
        if (get_route_method(rule), rule.rule) in OPEN:
            continue
        response = app.test_client().open(
            build_route_path(rule, broadcast_id), method=get_route_method(rule), headers=headers, json={}
        )
        assert (response.status_code, cors(response)) == (403, {}), rule
    with app.app_context():
        assert count_rows() == before
    assert {(get_route_method(rule), rule.rule) for rule in routes} >= OPEN


@pytest.mark.parametrize("origin", [OTHER, STRANGER, None, "null", SITE.upper(), SITE + "/", "http://intranet.example"])
def test_token_of_one_site_is_refused_to_every_other(app, site, origin):
    headers = page_of(origin, mint(app, site))
    if origin is None:
        del headers["Origin"]
    for method, path in OPEN:
        response = app.test_client().open(path, method=method, headers=headers, json={})
        assert (response.status_code, cors(response)) == (403, {}), path
    assert len(HUB.of(app)) == 0


def test_token_that_is_over_is_told_so_and_the_page_can_read_that(app, site):
    headers = page_of(SITE, mint(app, site))
    with time_machine.travel(time.time() + 901, tick=True):
        for path in ("/api/user/messages", "/api/sse/connect"):
            response = app.test_client().get(path, headers=headers)
            assert (response.status_code, cors(response)) == (401, {"Access-Control-Allow-Origin": SITE}), path
        assert mint(app, site) != headers["Authorization"].removeprefix("Bearer ")


@pytest.mark.parametrize("end", ["everywhere", "one session", "disabled", "password", "site's token", "forced"])
def test_what_ends_sessions_ends_embedded_inboxes_and_their_streams(app, site, end):
    headers = page_of(SITE, mint(app, site))
    stream = StreamReader(app.test_client(), headers=headers)
    stream.read_until("CONNECTED")
    with app.app_context():
        bob, now = load_actor("bob"), clock.now()
        if end == "everywhere":
            sessions.end_sessions(bob.user_id, by=bob, now=now, kept_session_id=0)
        elif end == "one session":
            sessions.end_session(db.session.scalar(select(UserSession.id)), by=bob, now=now)
        elif end == "disabled":
            actions.disable_user(bob.user_id, by=SYSTEM, now=now)
        elif end == "password":
            accounts.set_password(bob.user_id, "a new battery staple", by=SYSTEM, now=now)
        elif end == "site's token":
            tokens.revoke_token(db.session.scalar(select(ApiToken.id)), by=load_actor("alice"), now=now)
        else:
            publish_message(load_actor("alice"), build_user_message("bob", closeSessions=True))
        deliver_new_events(app)
    events = []
    while frame := stream.next_frame():
        events.append(frame.event)
    assert events[-1] == "SIGNED_OUT"
    assert app.test_client().get("/api/user/messages", headers=headers).status_code == 401
    asked = {"username": "bob", "origin": SITE}
    again = app.test_client().post("/api/embed/tokens", json=asked, headers=site).status_code
    assert again == {"disabled": 422, "site's token": 401}.get(end, 201)


def test_stream_ends_with_the_token_of_its_page(app, site):
    headers = page_of(SITE, mint(app, site))
    with time_machine.travel(time.time() + 890, tick=True):
        stream = StreamReader(app.test_client(), headers=headers)
    [connection] = HUB.of(app).connections
    assert connection.ends_at - time.monotonic() < 15
    stream.close()


def test_a_person_has_one_session_for_each_site_and_sees_it(app, site, client):
    mint(app, site), mint(app, site), mint(app, site, origin=OTHER)
    with app.app_context():
        rows = db.session.scalars(select(UserSession).where(UserSession.origin.is_not(None))).all()
        assert sorted(row.origin for row in rows) == [SITE, OTHER]
        told = db.session.scalars(select(AuditEntry).where(AuditEntry.action == "person.embedded")).all()
        assert [row.detail["origin"] for row in told] == [SITE, OTHER]
    assert f"Inbox in {SITE}" in BrowserClient.for_user(app, "bob").get("/account").get_data(as_text=True)


@pytest.mark.parametrize("hours", [7 * 24 + 1, 30 * 24 + 1])
def test_session_that_lapsed_is_followed_by_another(app, site, hours):
    old = page_of(SITE, mint(app, site))
    with time_machine.travel(time.time() + 3600 * hours, tick=True):
        new = page_of(SITE, mint(app, site))
        assert app.test_client().get("/api/user/messages", headers=new).status_code == 200
        assert app.test_client().get("/api/user/messages", headers=old).status_code == 401
    with app.app_context():
        assert db.session.query(UserSession).filter(UserSession.origin == SITE).count() == 2


def test_token_does_not_outlive_the_token_of_its_site(app, site):
    with app.app_context(), write_transaction() as session:
        session.query(ApiToken).one().expires_at = clock.now() + timedelta(minutes=2)
    answer = app.test_client().post("/api/embed/tokens", json={"username": "bob", "origin": SITE}, headers=site)
    assert answer.json["expiresIn"] <= 120


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"username": "nobody", "origin": SITE}, "username"),
        ({"username": "b\0b", "origin": SITE}, "username"),
        ({"username": 7, "origin": SITE}, "username"),
        ({"username": "", "origin": SITE}, "username"),
        ({"origin": SITE}, "username"),
        ({"username": "bob", "origin": STRANGER}, "origin"),
        ({"username": "bob", "origin": [SITE]}, "origin"),
        ({"username": "bob"}, "origin"),
        ({"username": "bob", "origin": SITE, "scope": "admin"}, "scope"),
        ([], "body"),
    ],
)
def test_site_that_asks_wrongly_is_told_what_is_wrong(app, site, body, field):
    with app.app_context():
        before = count_rows()
    answer = app.test_client().post("/api/embed/tokens", json=body, headers=site)
    assert (answer.status_code, list(answer.json["fields"])) == (422, [field])
    with app.app_context():
        assert count_rows() == before


def test_lone_origin_need_not_be_named(make_app, client):
    client()
    app = make_app(embed_origins=[OTHER])
    answer = app.test_client().post(
        "/api/embed/tokens", json={"username": "bob"}, headers=make_bearer_headers(app, "bob", ["embed"])
    )
    headers = page_of(OTHER, answer.json["token"])
    assert app.test_client().get("/api/user/messages", headers=headers).status_code == 200


@pytest.mark.parametrize("headers", [{"Origin": SITE}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}])
def test_tokens_are_not_for_browsers_to_ask(app, site, headers):
    body = {"username": "bob", "origin": SITE}
    answer = app.test_client().post("/api/embed/tokens", json=body, headers=site | headers)
    assert (answer.status_code, cors(answer)) == (403, {})
    assert "from your server" in answer.json["detail"]


@pytest.mark.parametrize("scope", ["inbox", "admin", "events", "metrics"])
def test_only_a_token_of_the_scope_embed_asks_for_others(app, site, scope):
    body = {"username": "bob", "origin": SITE}
    answer = app.test_client().post("/api/embed/tokens", json=body, headers=make_bearer_headers(app, "alice", [scope]))
    assert answer.status_code == 403
    assert BrowserClient.for_user(app, "alice").send("POST", "/api/embed/tokens", body).status_code == 403
    embedded = page_of(SITE, mint(app, site, "alice"))
    assert app.test_client().post("/api/embed/tokens", json=body, headers=embedded).status_code == 403


def test_token_of_the_scope_embed_opens_no_inbox_itself(app, site):
    for path in ("/api/user/messages", "/api/sse/connect", "/inbox", "/api/admin/broadcasts"):
        assert app.test_client().get(path, headers=site).status_code == 403, path


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_preflight_is_answered_for_exactly_what_is_open(app, client, routes, method):
    client()
    for rule in routes:
        if method not in rule.methods:
            continue
        asked = {"Origin": SITE, "Access-Control-Request-Method": method}
        response = app.test_client().options(build_route_path(rule), headers=asked)
        if (method, rule.rule) not in OPEN:
            assert cors(response) == {}, rule
            continue
        assert response.status_code == 204, rule
        assert cors(response) == {
            "Access-Control-Allow-Origin": SITE,
            "Access-Control-Allow-Methods": method,
            "Access-Control-Allow-Headers": "Authorization, Content-Type",
            "Access-Control-Max-Age": "600",
        }, rule
        assert "Origin" in response.vary


@pytest.mark.parametrize(
    ("origin", "method"),
    [(STRANGER, "GET"), (SITE, "DELETE"), (SITE, "PUT"), (SITE, "x\ty"), ("null", "GET"), ("", "GET")],
)
def test_preflight_of_others_or_for_more_is_not_answered(app, client, origin, method):
    client()
    for path in ("/api/user/messages", "/api/user/preferences", "/api/user/messages/1", "/api/nothing"):
        response = app.test_client().options(
            path, headers=ASKED | {"Origin": origin, "Access-Control-Request-Method": method}
        )
        assert cors(response) == {}


def test_no_cookie_and_no_other_token_invites_another_origin(app, site, client, routes):
    bob, program = BrowserClient.for_user(app, "bob"), make_bearer_headers(app, "bob", ["inbox"])
    for rule in routes:
        path, method = build_route_path(rule), get_route_method(rule)
        for headers in ({"Origin": SITE}, {"Origin": SITE} | program):
            response = bob.http.open(path, method=method, headers=headers, buffered=False)
            assert cors(response) == {}, rule
            response.close()


def test_token_is_no_cookie_and_a_cookie_is_no_token(app, site, client):
    token = mint(app, site)
    browser = BrowserClient(app.test_client())
    with browser.http.session_transaction() as cookie:
        cookie["token"] = token
    assert browser.get("/inbox").status_code == 303
    cookie = BrowserClient.for_user(app, "bob").http.get_cookie("broadcast").value
    assert app.test_client().get("/api/user/messages", headers=page_of(SITE, cookie)).status_code == 401


def with_another_signature(token: str) -> str:
    """One character changed, the first: the last one of a base64url signature also has bits that belong to no byte."""
    signed, _, signature = token.rpartition(".")
    return f"{signed}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


@pytest.mark.parametrize(
    "spoil",
    [
        with_another_signature,
        lambda token: token.removeprefix("bme_"),
        lambda token: "bme_",
        lambda token: "bme_." + token.rpartition(".")[2],
        lambda token: token + "x" * 10_000,
        lambda token: "bme_WzEsOTk5OTk5OTk5OV0.AAAA",
    ],
)
def test_token_that_nobody_signed_is_nobody_and_invites_nobody(app, site, spoil):
    response = app.test_client().get("/api/user/messages", headers=page_of(SITE, spoil(mint(app, site))))
    assert (response.status_code, cors(response)) == (401, {})


def test_keys_can_be_rotated_while_pages_are_open(make_app, client):
    client()
    before = make_app(embed_origins=[SITE], secret_key="a" * 40)
    headers = page_of(SITE, mint(before, make_bearer_headers(before, "alice", ["embed"])))
    for fallbacks, status in [(["a" * 40], 200), ([], 401)]:
        app = make_app(embed_origins=[SITE], secret_key="b" * 40, secret_key_fallbacks=fallbacks)
        assert app.test_client().get("/api/user/messages", headers=headers).status_code == status


def test_site_that_is_no_longer_allowed_is_shut_out_at_once(app, site, make_app):
    headers = page_of(SITE, mint(app, site))
    after = make_app(embed_origins=[OTHER])
    assert after.test_client().get("/api/user/messages", headers=headers).status_code == 403


def test_signed_session_must_be_an_embedded_one(app, site, client):
    """Even a signature for the session of a browser opens nothing."""
    BrowserClient.for_user(app, "bob")
    with app.app_context():
        token = embed_tokens.sign(
            db.session.scalar(select(UserSession.id)), expires_at=clock.now() + timedelta(minutes=5)
        )
    assert app.test_client().get("/api/user/messages", headers=page_of(SITE, token)).status_code == 401


def test_script_is_for_every_page_and_is_kept_for_minutes(app, client):
    client()
    response = app.test_client().get("/embed.js", headers={"Sec-Fetch-Site": "cross-site"})
    assert (response.status_code, response.mimetype) == (200, "text/javascript")
    assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert (response.headers["Cache-Control"], cors(response)) == ("public, max-age=300", {})
    again = app.test_client().get("/embed.js", headers={"If-None-Match": response.headers["ETag"]})
    assert again.status_code == 304


def test_without_sites_there_is_no_script_no_token_and_no_invitation(make_app, client):
    client()
    app = make_app()
    assert app.test_client().get("/embed.js").status_code == 404
    headers = make_bearer_headers(app, "alice", ["embed"])
    answer = app.test_client().post("/api/embed/tokens", json={"username": "bob", "origin": SITE}, headers=headers)
    assert answer.status_code == 404
    preflight = app.test_client().options("/api/user/messages", headers=ASKED | {"Origin": SITE})
    assert (cors(preflight), "Origin" in preflight.vary) == ({}, False)
