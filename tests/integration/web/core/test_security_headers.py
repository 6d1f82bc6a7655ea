"""Security headers of every response, and the allowed hosts."""

import pytest
from flask import request

from broadcast.streams.hub import HUB
from tests.support.builders import load_actor, publish_message
from tests.support.routes import build_route_path, get_route_method
from tests.support.users import BrowserClient

KEY = "k" * 40


def policy_of(response) -> dict[str, list[str]]:
    parts = response.headers["Content-Security-Policy"].split("; ")
    return {name: values for name, *values in map(str.split, parts)}


def test_every_answer_has_the_strict_headers(app, client, routes):
    alice, nobody = client("alice"), client()
    with app.app_context():
        broadcast_id = publish_message(load_actor("alice"))
    paths = [build_route_path(rule, broadcast_id) for rule in routes if get_route_method(rule) == "GET"]
    for browser in (alice, nobody):
        for path in [*paths, "/nothing", "/api/nothing", "/static/core/app.css", "/static/nothing"]:
            response = browser.get(path, buffered=False)
            response.close()
            policy = policy_of(response)
            assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == ["'none'"], path
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == ["'self'"], path
            assert policy["form-action"] == ["'self'"], path
            assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "https:", "http:"} & set(sum(policy.values(), [])), (
                path
            )
            assert response.headers["X-Content-Type-Options"] == "nosniff", path
            assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin", path
            assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin", path
            assert response.headers["Referrer-Policy"] == "same-origin", path
            assert "camera=()" in response.headers["Permissions-Policy"], path
            assert "Access-Control-Allow-Origin" not in response.headers, path
            names = [name for name, _ in response.headers if name != "Set-Cookie"]
            assert sorted(names) == sorted(set(names)), path


def test_pages_hold_no_inline_script_style_or_handler(app, client, routes):
    """The policy would block them; a page that needs one would be broken."""
    alice = client("alice")
    with app.app_context():
        broadcast_id = publish_message(load_actor("alice"))
    for rule in routes:
        if get_route_method(rule) != "GET" or rule.rule.endswith(("stream", "connect")):
            continue
        page = alice.get(build_route_path(rule, broadcast_id))
        if page.mimetype == "text/html":
            text = page.get_data(as_text=True)
            for inline in (
                "<script>",
                "<style",
                " style=",
                " onclick=",
                " onload=",
                " onsubmit=",
                "javascript:",
                "hx-on:",
            ):
                assert inline not in text, (rule, inline)


@pytest.mark.parametrize("path", ["/inbox", "/inbox/count", "/api/user/messages", "/console/", "/login"])
def test_personal_answers_are_not_kept(client, path):
    assert client("alice").get(path).headers["Cache-Control"] == "no-store"


def test_cookie_is_out_of_reach_of_scripts_and_other_sites(client):
    cookie = client().get("/login").headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie.split("; "), "development runs on plain HTTP"


def test_production_cookie_is_bound_to_host_and_https(make_app, client):
    client()
    browser = make_app(app_env="production", secret_key=KEY).test_client()
    response = browser.get("/login", base_url="https://localhost")
    cookie = response.headers["Set-Cookie"]
    assert cookie.startswith("__Host-broadcast=")
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    assert "max-age=" in response.headers["Strict-Transport-Security"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("good.example", 200),
        ("evil.example", 400),
        ("good.example.evil.example", 400),
        ("", 400),
        ("good.example:8000", 200),
    ],
)
@pytest.mark.parametrize("path", ["/login", "/nothing", "/api/user/messages"])
def test_only_named_hosts_are_answered(make_app, client, host, status, path):
    client()
    browser = make_app(trusted_hosts=["good.example"]).test_client()
    response = browser.get(path, headers={"Host": host})
    expected = {"/login": 200, "/nothing": 404, "/api/user/messages": 401}[path] if status == 200 else 400
    assert response.status_code == expected
    assert "evil" not in response.get_data(as_text=True)


def test_forwarded_headers_are_believed_for_named_hops_only(make_app, client):
    """The address counts for limits and for /metrics; a client must not choose its own."""
    client()
    headers = {"X-Forwarded-For": "203.0.113.9, 127.0.0.1"}
    plain, behind = make_app(), make_app(trusted_proxy_hops=1)
    for app, address in [(plain, "192.0.2.1"), (behind, "127.0.0.1")]:
        bob = BrowserClient.for_user(app, "bob")
        stream = bob.get("/api/sse/connect", headers=headers, environ_base={"REMOTE_ADDR": "192.0.2.1"}, buffered=False)
        [connection] = HUB.of(app).connections
        assert connection.address == address
        stream.close()


def test_scheme_behind_two_proxies_is_the_one_that_the_nearer_passed_on(make_app):
    app = make_app(trusted_proxy_hops=2)
    headers = {"X-Forwarded-For": "203.0.113.9, 192.0.2.7", "X-Forwarded-Proto": "https"}
    with app.test_client() as client:
        client.get("/login", headers=headers)
        assert (request.scheme, request.remote_addr) == ("https", "203.0.113.9")


def test_keys_can_be_rotated(make_app, client):
    client()
    bob = BrowserClient.for_user(make_app(secret_key="a" * 40), "bob")
    cookie = bob.http.get_cookie("broadcast").value
    for fallbacks, status in [(["a" * 40], 200), ([], 303)]:
        browser = BrowserClient(make_app(secret_key="b" * 40, secret_key_fallbacks=fallbacks).test_client())
        browser.http.set_cookie("broadcast", cookie)
        assert browser.get("/inbox").status_code == status
