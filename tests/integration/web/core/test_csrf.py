"""CSRF: writes without a token, from another site, or into another user's session."""

import pytest

from broadcast.actions import users
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from tests.support.builders import build_message, count_rows, load_actor, publish_message
from tests.support.routes import build_route_path, get_route_method, make_bearer_headers


@pytest.fixture
def unsafe(routes) -> list:
    """Every write but the provider's notice, which no cookie helps (`test_provider_logout`)."""
    without_session = ("/login/organisation/logout", "/email/")  # what they carry authenticates them
    return [rule for rule in routes if get_route_method(rule) != "GET" and not rule.rule.startswith(without_session)]


def test_every_write_with_a_cookie_needs_the_token(app, client, unsafe):
    alice = client("alice")
    with app.app_context():
        broadcast_id = publish_message(load_actor("alice"))
        before = count_rows()
    for rule in unsafe:
        path = build_route_path(rule, broadcast_id)
        for options in ({}, {"data": {"csrf_token": "forged"}}, {"json": {}, "headers": {"X-CSRFToken": "forged"}}):
            response = alice.http.open(path, method=get_route_method(rule), **options)
            assert response.status_code == 403, rule
    with app.app_context():
        assert count_rows() == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "nonsense"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://localhost"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://localhost:81"},
    ],
)
def test_write_from_elsewhere_is_refused_even_with_the_token(app, client, unsafe, headers):
    alice = client("alice")
    with app.app_context():
        broadcast_id = publish_message(load_actor("alice"))
        before = count_rows()
    for rule in unsafe:
        response = alice.send(get_route_method(rule), build_route_path(rule, broadcast_id), {}, headers=headers)
        assert response.status_code == 403, rule
    with app.app_context():
        assert count_rows() == before


@pytest.mark.parametrize(
    "headers", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://localhost"}]
)
def test_write_of_the_own_page_is_accepted(client, headers):
    made = client("alice").send("POST", "/api/admin/broadcasts", build_message(), headers=headers)
    assert made.status_code == 201


def test_token_of_another_session_does_not_count(client):
    alice, bob = client("alice"), client("bob")
    bob.get("/inbox")
    alice.csrf_token = bob.csrf_token
    assert alice.send("POST", "/api/admin/broadcasts", build_message()).status_code == 403


def test_program_with_a_bearer_token_needs_no_csrf_token(app, client):
    client()
    made = app.test_client().post(
        "/api/admin/broadcasts", json=build_message(), headers=make_bearer_headers(app, "alice", ["admin"])
    )
    assert made.status_code == 201


def test_cookie_does_not_help_a_wrong_bearer_token(client):
    """The header decides; a browser's cookie must not stand in for a token that is not known."""
    alice = client("alice")
    response = alice.http.post("/api/admin/broadcasts", json=build_message(), headers={"Authorization": "Bearer x"})
    assert response.status_code == 401


def test_sign_in_needs_the_token_of_its_page(app, client):
    """Login CSRF: nobody can sign a visitor in as somebody else."""
    nobody = client()
    with app.app_context():
        users.create_user("dana", "correct horse battery", by=SYSTEM, now=clock.now())
    form = {"username": "dana", "password": "correct horse battery"}
    assert nobody.http.post("/login", data=form).status_code == 403
    headers = {"Origin": "http://evil.example"}
    assert nobody.post("/login", form, headers=headers).status_code == 403
    assert nobody.post("/login", form).status_code == 303
