"""The first administrator is created in the browser with the setup code: once, by whoever has it, and never again."""

from contextlib import suppress

import pytest
from flask import Flask

from broadcast.actions import accounts as actions
from broadcast.actions import passwords, users
from broadcast.base.errors import Conflict, Invalid
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import users as known
from broadcast.store.database import db
from broadcast.store.models import SetupCode
from tests.support.background import call_at_once
from tests.support.users import BrowserClient

PASSWORD = "correct horse battery"


@pytest.fixture
def code(app: Flask) -> str:
    with app.app_context():
        return actions.create_setup_code(now=clock.now())


@pytest.fixture
def nobody(app: Flask) -> BrowserClient:
    return BrowserClient.for_user(app, None)


def fill_in(nobody: BrowserClient, given: str, **typed: str):
    """Post the form with a code; return the answer."""
    nobody.get("/setup")
    form = {"code": given, "username": "Ada", "name": "Ada Adler", "password": PASSWORD} | typed
    return nobody.post("/setup", form)


def people_there(app: Flask) -> list[str]:
    with app.app_context():
        return [user.username for user in known.list_page(known.UserFilters())]


def test_empty_system_leads_to_the_form_and_the_code_makes_an_administrator_who_is_signed_in(app, nobody, code):
    assert nobody.get("/").location.startswith("/login")
    assert 'href="/setup"' in nobody.get("/login").get_data(as_text=True)
    assert code not in nobody.get("/setup").get_data(as_text=True)
    assert fill_in(nobody, code.upper() + " ").location == "/console/"
    page = nobody.get("/console/").get_data(as_text=True)
    assert "Send your first broadcast" in page
    assert "Ada Adler" in page
    with app.app_context():
        assert known.get_by_username("ada").roles == {"admin"}


def test_code_is_kept_as_a_hash_and_is_good_once(app, nobody, code):
    with app.app_context():
        assert code not in db.session.scalar(db.select(SetupCode.code_hash))
    fill_in(nobody, code)
    with app.app_context():
        assert db.session.scalar(db.select(SetupCode)) is None
        with pytest.raises(Conflict):
            actions.create_first_administrator(code, "eve", PASSWORD, name=None, now=clock.now())


@pytest.mark.parametrize(
    "typed",
    [
        {"code": ""}, {"code": "0000-0000-0000-0000-0000"}, {"code": "\0"}, {"code": "x" * 5000}, {"username": ""},
        {"username": "ada adler"}, {"username": "\0"}, {"password": "short"}, {"password": "password"}, {"name": "a\u202eb"},
    ],
)  # fmt: skip
def test_wrong_form_makes_nobody_comes_back_as_typed_and_leaves_the_code_good(app, nobody, code, typed):
    response = fill_in(nobody, code, **typed)
    page = response.get_data(as_text=True)
    assert response.status_code == 422
    [field] = typed
    assert f'id="{field}-error"' in page
    assert PASSWORD not in page
    assert people_there(app) == []
    assert fill_in(nobody, code).status_code == 303


def test_newer_code_voids_the_older(app, nobody, code):
    with app.app_context():
        newer = actions.create_setup_code(now=clock.now())
    assert fill_in(nobody, code).status_code == 422
    assert fill_in(nobody, newer).status_code == 303


def test_once_there_is_an_administrator_the_door_is_closed(app, nobody, code):
    with app.app_context():
        alice = users.create_user("alice", None, roles=["admin"], by=SYSTEM, now=clock.now())
    assert nobody.get("/setup").location == "/login"
    assert "/setup" not in nobody.get("/login").get_data(as_text=True)
    assert fill_in(nobody, code).status_code == 409
    with app.app_context():
        users.disable_user(alice, by=SYSTEM, now=clock.now())
        assert actions.create_setup_code(now=clock.now()) is None
    assert fill_in(nobody, code).status_code == 409
    assert people_there(app) == ["alice"]


def test_old_code_stays_void_when_nobody_is_administrator_any_more(app, nobody, code):
    with app.app_context():
        alice = users.create_user("alice", None, roles=["admin"], by=SYSTEM, now=clock.now())
        users.set_roles(alice, [], by=SYSTEM, now=clock.now())
        assert not known.has_administrator()
    assert fill_in(nobody, code).status_code == 422


def test_name_that_somebody_has_is_told_and_leaves_the_code_good(app, nobody, code):
    with app.app_context():
        users.create_user("ada", None, by=SYSTEM, now=clock.now())
    assert "There is a user called ada already" in fill_in(nobody, code).get_data(as_text=True)
    assert fill_in(nobody, code, username="bea").status_code == 303


def test_two_who_hold_the_code_make_one_administrator(make_app, code, monkeypatch):
    monkeypatch.setattr(passwords, "hash_password", lambda password: "x")  # its threads belong to the main thread
    app, made = make_app(database_lock_timeout_seconds=25), []

    def make(n: int) -> None:
        username = ("ada", "bea")[n]
        with suppress(Conflict, Invalid):
            actions.create_first_administrator(code, username, PASSWORD, name=None, now=clock.now())
            made.append(username)

    call_at_once(app, 2, make)
    assert len(made) == 1
    assert people_there(app) == made


def test_guessing_is_limited_and_the_form_needs_its_token(make_app):
    app = make_app(ratelimit_enabled=True, limit_login_per_account="3/minute")
    nobody = BrowserClient.for_user(app, None)
    assert [fill_in(nobody, "guess").status_code for _ in range(4)] == [422, 422, 422, 429]
    assert app.test_client().post("/setup", data={"code": "x"}).status_code == 403
