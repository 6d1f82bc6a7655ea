"""Signing in and out over HTTP."""

from datetime import timedelta

import pytest

from broadcast.actions import users
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store.database import db
from broadcast.store.models import UserSession
from broadcast.store.transactions import write_transaction
from tests.support.builders import count_rows, load_actor
from tests.support.users import BrowserClient

FORM = {"username": "dana", "password": "correct horse battery"}


@pytest.fixture
def dana(app, client) -> BrowserClient:
    """A browser in front of the sign-in page; Dana has a password."""
    with app.app_context():
        users.create_user("dana", FORM["password"], roles=["ops"], by=SYSTEM, now=clock.now())
    return client()


def cookie_of(browser: BrowserClient) -> str:
    return browser.http.get_cookie("broadcast").value


def test_sign_in_leads_to_the_inbox(dana):
    response = dana.post("/login", FORM)
    assert (response.status_code, response.location) == (303, "/inbox")
    assert dana.get("/inbox").status_code == 200
    assert dana.get("/login").location == dana.get("/").location == "/inbox"


@pytest.mark.parametrize(
    "form", [{"username": "nobody"}, {"password": "wrong"}, {"username": "dana\0"}, {"username": ""}]
)
def test_wrong_sign_in_keeps_the_name_and_never_the_password(app, dana, form):
    with app.app_context():
        before = count_rows()
    given = FORM | form | {"password": form.get("password", "p4ssw0rd-typed")}
    response = dana.post("/login", given)
    page = response.get_data(as_text=True)
    assert response.status_code == 401
    assert "Wrong username or password" in page
    assert given["username"].replace("\0", "") in page.replace("\0", "")
    assert given["password"] not in page
    with app.app_context():
        assert count_rows() == before


def test_new_session_id_and_new_csrf_token_at_sign_in(app, dana):
    """A cookie or a form that somebody planted before signing in is worth nothing after it."""
    dana.get("/login")
    planted_cookie, planted_csrf = cookie_of(dana), dana.csrf_token
    dana.post("/login", FORM)
    assert cookie_of(dana) != planted_cookie
    response = dana.http.post("/inbox/read-all", data={"csrf_token": planted_csrf})
    assert response.status_code == 403
    other = BrowserClient(app.test_client())
    other.http.set_cookie("broadcast", planted_cookie)
    assert other.get("/inbox").status_code == 303


def test_sign_out_revokes_on_the_server(app, dana):
    """The old cookie, copied before, no longer works."""
    dana.post("/login", FORM)
    stolen = cookie_of(dana)
    dana.get("/inbox")
    response = dana.post("/logout")
    assert (response.status_code, response.location) == (303, "/login")
    assert response.headers["Clear-Site-Data"] == '"storage"'
    thief = BrowserClient(app.test_client())
    thief.http.set_cookie("broadcast", stolen)
    assert thief.get("/inbox").status_code == 303
    assert thief.http.get("/api/user/messages").status_code == 401


def age(app, **changes) -> None:
    with app.app_context(), write_transaction() as session:
        for row in session.scalars(db.select(UserSession)):
            for name, value in changes.items():
                setattr(row, name, value)


def test_session_ends_when_idle_or_old(app, client):
    bob, now = client("bob"), clock.now()
    assert bob.get("/inbox").status_code == 200
    age(app, seen_at=now - timedelta(hours=24 * 7, minutes=1))
    assert bob.get("/inbox").status_code == 303
    age(app, seen_at=now, created_at=now - timedelta(hours=24 * 30, minutes=1))
    assert bob.get("/inbox").status_code == 303
    age(app, created_at=now)
    assert bob.get("/inbox").status_code == 200


def test_disabled_person_is_out_at_once(app, client):
    bob = client("bob")
    with app.app_context():
        users.disable_user(load_actor("bob").user_id, by=SYSTEM, now=clock.now())
    assert bob.get("/inbox").status_code == 303


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)", "evil.example",
     " //evil.example", "/\t/evil.example", "/\r\nSet-Cookie: x=1", "///evil.example", "http:evil.example", "", "/\x00/e"],
)  # fmt: skip
def test_next_never_leads_elsewhere(dana, target):
    response = dana.post("/login", FORM | {"next": target})
    assert (response.status_code, response.location) == (303, "/inbox")
    assert "Set-Cookie: x" not in str(response.headers)


@pytest.mark.parametrize("target", ["/inbox/5", "/console/broadcasts?filter=active&q=a%20b", "/inbox?view=unread"])
def test_next_leads_back_to_where_one_was_stopped(dana, target):
    stopped = dana.get(target)
    assert stopped.status_code == 303
    page = dana.get(stopped.location).get_data(as_text=True)
    assert f'name="next" value="{target.replace("&", "&amp;")}"' in page
    assert dana.post("/login", FORM | {"next": target}).location == target


def test_htmx_request_without_session_leaves_the_page_for_the_sign_in(client):
    response = client().get("/inbox/list", headers={"HX-Request": "true"})
    assert (response.status_code, "HX-Redirect" in response.headers) == (401, False)  # the page's script leads there


def test_demo_logins_are_shown_only_with_the_demo(make_app, client):
    assert "alice-demo-1" not in client().get("/login").get_data(as_text=True)
    assert "alice-demo-1" in make_app(demo=True).test_client().get("/login").get_data(as_text=True)


@pytest.mark.parametrize("cookie", ["", "x", "a.b.c", "eyJ0b2tlbiI6IngifQ.aaaa.bbbb", "\u20ac"])
def test_forged_cookie_is_nobody(app, client, cookie):
    client()
    http = app.test_client()
    http.set_cookie("broadcast", cookie)
    assert http.get("/api/user/messages").status_code == 401


def test_second_sign_in_ends_the_session_that_this_browser_had(app, dana):
    """A copy of the old cookie is worth nothing, though nobody signed out."""
    with app.app_context():
        users.create_user("erin", FORM["password"], by=SYSTEM, now=clock.now())
    dana.post("/login", FORM)
    stolen = cookie_of(dana)
    for username in ("dana", "erin"):
        dana.get("/inbox")
        assert dana.post("/login", FORM | {"username": username}).status_code == 303
        thief = BrowserClient(app.test_client())
        thief.http.set_cookie("broadcast", stolen)
        assert thief.get("/inbox").status_code == 303
        assert dana.get("/inbox").status_code == 200
    elsewhere = BrowserClient(app.test_client())
    elsewhere.post("/login", FORM)
    assert dana.get("/inbox").status_code == 200, "another browser's sign-in ends nothing here"


def test_refused_sign_in_leaves_the_session_alone(dana):
    dana.post("/login", FORM)
    dana.get("/inbox")
    assert dana.post("/login", FORM | {"password": "wrong wrong"}).status_code == 401
    assert dana.get("/inbox").status_code == 200


def test_old_cookie_ends_with_the_old_password(app, dana):
    dana.post("/login", FORM)
    dana.get("/account")
    stolen = cookie_of(dana)
    form = {"current": FORM["password"], "new": "another long sentence", "again": "another long sentence"}
    assert dana.post("/account/password", form).status_code == 303
    assert dana.get("/inbox").status_code == 200, "this browser goes on"
    assert dana.post("/inbox/read-all").status_code in (200, 303), "with the forms that it has open"
    thief = BrowserClient(app.test_client())
    thief.http.set_cookie("broadcast", stolen)
    assert thief.get("/inbox").status_code == 303


def test_administrator_changes_the_own_password_in_the_account_only(app, client):
    alice = client("alice")
    with app.app_context():
        own = load_actor("alice").user_id
    page = alice.get(f"/console/people/{own}").text
    assert f"/console/people/{own}/password" not in page
    assert 'href="/account"' in page
    assert alice.post(f"/console/people/{own}/password").status_code == 409
