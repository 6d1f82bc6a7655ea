"""Access control: every route of the URL map, for every test user, denied by default."""

import pytest
from flask.views import View
from werkzeug.routing import Rule

from broadcast.actions import tokens
from broadcast.actions import users as actions
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store.models import ApiToken
from broadcast.store.transactions import write_transaction
from tests.integration.web.embed.test_embedding import OPEN as OPEN_TO_EMBEDDED
from tests.support.builders import build_message, build_role_message, count_rows, load_actor, publish_message
from tests.support.routes import build_route_path, get_route_method, make_bearer_headers

OPEN = {
    "/login",
    "/setup",
    "/login/organisation",
    "/login/organisation/callback",
    "/signed-out",
    "/session",
    "/invitation/<token>",
    "/email/confirm/<token>",
    "/email/unsubscribe/<token>",
    "/healthz",
    "/readyz",
    "/metrics",
    "/api/openapi.json",
    "/embed.js",
    "/manifest.webmanifest",
    "/service-worker.js",
}  # metrics: to this machine, which the test client is
PERSONS = ("/inbox", "/preferences", "/api/user/", "/api/sse/", "/logout")
ACCOUNT = "/account"
CONSOLE = ("/console/", "/api/admin/", "/api/sse/stats")
PEOPLE = {"people", "roles", "tokens"}
OPERATING = (
    "/console/connections/",
    "/console/dead-letters",
    "/console/rules",
    "/console/channels",
    "/console/webhooks",
    "/api/admin/webhooks",
    "/console/health",
    "/api/admin/dlt",
)
WRITING = (
    "/console/broadcasts/new",
    "/console/broadcasts/<int:broadcast_id>/edit",
    "/console/people-found",
    "/console/library",
)
ROLES = {  # who opens which doors of the console
    "viewer": {"see"},
    "author": {"see", "write", "figures"},
    "auditor": {"see", "figures", "audit"},
    "admin": {"see", "write", "figures", "people", "audit", "operate"},
    "ops": set(),
}


def wanted(rule: Rule) -> str:
    """For whom a route is, by its address: written here once more, so that a slip in the code is seen."""
    if rule.rule.startswith("/email/") and get_route_method(rule) == "POST":
        return "link"
    if rule.rule in OPEN:
        return "anyone"
    if rule.rule == "/login/organisation/logout":
        return "provider"
    if rule.rule == "/api/events":
        return "events"
    if rule.rule == "/api/embed/tokens":
        return "embed"
    if rule.rule.startswith(ACCOUNT):
        return "account"
    if rule.rule.startswith(CONSOLE):
        return _wanted_in_console(rule)
    assert rule.rule == "/" or rule.rule.startswith(PERSONS), f"{rule.rule} is new: say here for whom it is"
    return "person"


def _wanted_in_console(rule: Rule) -> str:
    if rule.rule.split("/")[2] in PEOPLE:
        return "people"
    if rule.rule.startswith("/console/audit"):
        return "audit"
    if rule.rule.startswith(OPERATING):
        return "operate"
    if rule.rule.endswith(
        ("/missing", "/figures.csv", "/deliveries", "/deliveries.csv", "/revisions", "/acknowledged/<int:revision>")
    ):
        return "figures"
    if rule.rule.startswith(WRITING) or get_route_method(rule) != "GET":
        return "write"
    return "see"


def test_every_route_has_a_rule(app, routes):
    for rule in routes:
        given = getattr(app.view_functions[rule.endpoint], "rule", None)
        assert given == ("operator" if rule.rule == "/metrics" else wanted(rule)), rule.endpoint


def test_only_few_routes_are_for_embedded_inboxes(app, routes):
    """Deny by default: what they are is written out in `test_embedding`, where each is tried."""
    embedded = {rule.rule for rule in routes if getattr(app.view_functions[rule.endpoint], "embedded", False)}
    assert embedded == {path for _, path in OPEN_TO_EMBEDDED}


def test_view_without_a_rule_is_refused_to_everybody(app, client):
    app.add_url_rule("/forgotten", "forgotten", lambda: "secret")
    app.add_url_rule(
        "/forgotten-class", view_func=type("V", (View,), {"dispatch_request": lambda self: "x"}).as_view("v")
    )
    assert client().get("/forgotten").status_code == 303
    for path in ("/forgotten", "/forgotten-class"):
        assert client("alice").get(path).status_code == 403


def test_nobody_gets_to_sign_in_first(app, client, routes):
    """Pages lead to /login, the API answers 401 as problem+json, the page's stream says SIGNED_OUT."""
    nobody = client()
    for rule in routes:
        if wanted(rule) in ("anyone", "provider", "link"):
            continue
        response = nobody.http.open(build_route_path(rule), method=get_route_method(rule))
        if rule.rule == "/inbox/stream":
            assert (response.status_code, b"event: SIGNED_OUT" in response.data) == (200, True)
        elif rule.rule.startswith("/api/"):
            assert response.status_code == 401, rule
            assert response.mimetype == "application/problem+json", rule
            assert response.json["status"] == 401
        else:
            assert response.status_code == 303, rule
            assert response.location.startswith("/login"), rule


@pytest.mark.parametrize("name", ["bob", "charlie"])
def test_console_is_for_administrators_only(app, client, routes, name):
    person = client(name)
    with app.app_context():
        broadcast_id = publish_message(load_actor("alice"))
        before = count_rows()
    for rule in (rule for rule in routes if rule.rule.startswith(CONSOLE)):
        response = person.send(get_route_method(rule), build_route_path(rule, broadcast_id))
        assert response.status_code == 403, rule
        assert (response.mimetype == "application/problem+json") == rule.rule.startswith("/api/"), rule
    with app.app_context():
        assert count_rows() == before


@pytest.mark.parametrize("role", ROLES)
def test_role_opens_the_doors_of_its_permissions_and_no_others(app, client, routes, role):
    """What is refused is 403 and writes nothing; what is allowed is anything but that."""
    bob = client("bob")
    bob.get("/inbox")
    with app.app_context():
        broadcast_id = publish_message(load_actor("alice"))
        actions.set_roles(load_actor("bob").user_id, [role], by=SYSTEM, now=clock.now())
    for rule in (rule for rule in routes if rule.rule.startswith(CONSOLE)):
        response = bob.send(get_route_method(rule), build_route_path(rule, broadcast_id), buffered=False)
        response.close()
        assert (response.status_code != 403) == (wanted(rule) in ROLES[role]), (role, rule)


@pytest.mark.parametrize(
    ("scopes", "inbox", "console"),
    [(["inbox"], 200, 403), (["admin"], 200, 200), (["events"], 403, 403), (["embed"], 403, 403)],
)
def test_token_opens_what_its_scope_says(app, client, scopes, inbox, console):
    client()
    headers = make_bearer_headers(app, "alice", scopes)
    http = app.test_client()
    assert http.get("/api/user/messages", headers=headers).status_code == inbox
    assert http.get("/api/admin/broadcasts", headers=headers).status_code == console
    made = http.post("/api/admin/broadcasts", json=build_message(), headers=headers)
    assert made.status_code == (201 if console == 200 else 403)


@pytest.mark.parametrize("change", ["revoked", "expired", "disabled", "unknown"])
def test_token_that_has_ended_opens_nothing(app, client, change):
    client()
    headers = make_bearer_headers(app, "alice", ["admin"])
    with app.app_context(), write_transaction() as session:
        token = session.query(ApiToken).one()
        if change == "revoked":
            token.revoked_at = clock.now()
        elif change == "expired":
            token.expires_at = clock.now()
        elif change == "unknown":
            token.token_hash = "0" * 64
    if change == "disabled":
        with app.app_context():
            actions.disable_user(load_actor("alice").user_id, by=SYSTEM, now=clock.now())
    for path in ("/api/user/messages", "/api/admin/broadcasts", "/api/sse/connect"):
        response = app.test_client().get(path, headers=headers)
        assert (response.status_code, response.mimetype) == (401, "application/problem+json")


def test_token_loses_its_rights_with_its_person(app, client):
    client()
    headers = make_bearer_headers(app, "alice", ["admin"])
    with app.app_context():
        actions.set_roles(load_actor("alice").user_id, [], by=SYSTEM, now=clock.now())
    assert app.test_client().get("/api/admin/broadcasts", headers=headers).status_code == 403


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", "Basic YWxpY2U6eA==", "bearer x y", "Bearer \xff"])
def test_odd_authorization_is_nobody(app, client, header):
    client()
    response = app.test_client().get("/api/user/messages", headers={"Authorization": header})
    assert response.status_code == 401


def test_token_for_metrics_reads_those_and_nothing_else(app, client):
    client()
    with app.app_context():
        bob = load_actor("bob").user_id
        token = tokens.create_token(bob, scopes=["metrics"], label="Prometheus", by=SYSTEM, now=clock.now())
    asked = {"headers": {"Authorization": f"Bearer {token}"}, "environ_base": {"REMOTE_ADDR": "192.0.2.1"}}
    http = app.test_client()
    assert http.get("/metrics", **asked).status_code == 200
    for path in ("/api/user/messages", "/inbox", "/console/", "/api/sse/connect", "/api/admin/broadcasts"):
        assert http.get(path, **asked).status_code == 403, path


def test_metrics_are_for_operators_and_nearness_is_no_proof(app, client):
    """A17. A proxy on the same machine, or in front of a unix socket, asks from there for the whole world."""
    for address in ("127.0.0.1", "::1", "", "192.0.2.7"):
        asked = {"environ_base": {"REMOTE_ADDR": address}}
        assert client().get("/metrics", **asked).status_code == 303, address
        assert client("bob").get("/metrics", **asked).status_code == 403
        assert client("alice").get("/metrics", **asked).status_code == 200


@pytest.mark.parametrize(
    ("address", "headers", "hops", "status"),
    [
        ("10.1.2.3", {}, 0, 200),
        ("::ffff:10.1.2.3", {}, 0, 200),
        ("10.2.2.3", {}, 0, 303),
        ("127.0.0.1", {}, 0, 303),
        ("", {}, 0, 303),
        ("10.1.2.3", {}, 1, 200),
        ("192.0.2.7", {"X-Forwarded-For": "10.1.2.3"}, 1, 303),
        ("192.0.2.7", {"X-Forwarded-For": "10.1.2.3"}, 0, 303),
        *(
            ("10.1.2.3", {name: value}, hops, 303)
            for name, value in [
                ("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "a"), ("Via", "1.1 a"),
                ("X-Forwarded-User", "a"), ("Forwarded", "for=192.0.2.7"), ("X-Real-IP", "192.0.2.7"),
            ]
            for hops in (0, 1)
        ),
    ],
)  # fmt: skip
def test_metrics_are_open_to_the_addresses_that_are_named(make_app, client, address, headers, hops, status):
    client()
    http = make_app(metrics_from=["10.1.0.0/16"], trusted_proxy_hops=hops).test_client()
    assert http.get("/metrics", headers=headers, environ_base={"REMOTE_ADDR": address}).status_code == status


def test_no_get_writes(app, client, routes):
    """After every GET, by everybody, no table has another row and the log has no other number."""
    people = [client("alice"), client("bob"), client("charlie"), client()]
    with app.app_context():
        broadcast_id = publish_message(load_actor("alice"), build_role_message("ops", "admin"))
        before = count_rows()
    for person in people:
        for rule in routes:
            if get_route_method(rule) == "GET":
                person.get(build_route_path(rule, broadcast_id), buffered=False).close()
    with app.app_context():
        assert count_rows() == before
