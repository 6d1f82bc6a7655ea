"""Login at a reverse proxy: its header is trusted from the proxy's address only."""

from collections.abc import Callable

import pytest
from flask import Flask
from structlog.testing import capture_logs

from broadcast.actions import users as actions
from broadcast.config.settings import Settings, SettingsError
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import audit, users
from broadcast.store.database import db
from broadcast.store.models import UserSession
from tests.conftest import add_test_users
from tests.support.builders import count_rows, load_actor
from tests.support.users import BrowserClient

PROXY, ELSEWHERE = "10.1.2.3", "192.0.2.66"
SETTINGS = {
    "trusted_proxy_hops": 1,
    "proxy_sign_in_header": "X-Forwarded-User",
    "proxy_sign_in_from": ["10.1.0.0/16", "::1"],
}


@pytest.fixture
def behind(make_app) -> Callable[..., Flask]:
    """An application behind a proxy that signs people in; the cast exists. Settings as changes."""

    def make(**changes) -> Flask:
        app = make_app(**SETTINGS | changes)
        with app.app_context():
            add_test_users()
        return app

    return make


def come(browser: BrowserClient, path: str, user: str | None = None, *, peer: str = PROXY, **options):
    """A request that reaches us from `peer`, on behalf of a client elsewhere."""
    headers = {"X-Forwarded-For": "198.51.100.7"} | options.pop("headers", {})
    headers |= {"X-Forwarded-User": user} if user is not None else {}
    return browser.get(path, headers=headers, environ_base={"REMOTE_ADDR": peer}, **options)


def is_in(browser: BrowserClient, user: str | None = None, *, peer: str = PROXY) -> bool:
    return come(browser, "/account", user, peer=peer).status_code == 200


def test_whom_the_proxy_names_is_signed_in_on_the_way_to_the_page(behind):
    app = behind()
    browser = BrowserClient.for_user(app, None)
    stopped = come(browser, "/inbox?view=unread", "Bob")
    assert stopped.status_code == 303
    answer = come(browser, stopped.location, "Bob")
    assert (answer.status_code, answer.location) == (303, "/inbox?view=unread")
    assert is_in(browser, "bob")
    with app.app_context():
        [row] = db.session.scalars(db.select(UserSession))
        assert (row.user_id, row.address) == (load_actor("bob").user_id, "198.51.100.7")
        [first, *_] = audit.list_page(audit.AuditFilters(what="person.signed_in"), limit=5)
        assert first.detail["vouched_by"] == "proxy"


@pytest.mark.parametrize("peer", [ELSEWHERE, "10.2.0.1", "2001:db8::1", ""])
def test_header_from_anybody_else_is_ignored_and_logged(behind, peer):
    app = behind(log_level="warning")
    browser = BrowserClient.for_user(app, None)
    with app.app_context():
        before = count_rows()
    with capture_logs() as lines:
        assert come(browser, "/login", "alice", peer=peer).status_code == 200
    assert [line["peer"] for line in lines if line["event"] == "proxy_sign_in.ignored"] == [peer]
    assert not is_in(browser, "alice", peer=peer)
    with app.app_context():
        assert count_rows() == before


def test_address_that_a_client_claims_for_itself_is_not_the_proxys(behind):
    """X-Forwarded-For says who is forwarded for; whom we believe is who is connected."""
    browser = BrowserClient.for_user(behind(), None)
    come(browser, "/login", "alice", peer=ELSEWHERE, headers={"X-Forwarded-For": PROXY})
    assert not is_in(browser, peer=ELSEWHERE)


@pytest.mark.parametrize("peer", ["10.1.255.255", "::1", "::ffff:10.1.2.3"])
def test_networks_are_of_both_kinds(behind, peer):
    browser = BrowserClient.for_user(behind(), None)
    assert come(browser, "/login", "bob", peer=peer).status_code == 303


def test_without_the_setting_the_header_is_nothing(make_app):
    app = make_app(trusted_proxy_hops=1)
    with app.app_context():
        add_test_users()
    browser = BrowserClient.for_user(app, None)
    assert come(browser, "/login", "alice").status_code == 200
    assert not is_in(browser, "alice")


def test_session_ends_when_the_proxy_names_somebody_else(behind):
    app = behind()
    browser = BrowserClient.for_user(app, None)
    come(browser, "/login", "bob")
    assert come(browser, "/account", "charlie").status_code == 303
    with app.app_context():
        [row] = db.session.scalars(db.select(UserSession))
        assert row.ended_at
    assert not is_in(browser, "bob"), "and it stays ended"
    assert come(browser, "/login", "charlie").status_code == 303
    assert "Charlie" in come(browser, "/account", "charlie").get_data(as_text=True)


def test_session_of_the_proxy_is_worth_nothing_where_the_proxy_names_nobody(behind):
    """Its cookie, carried past the proxy, opens nothing; a session by password does."""
    app = behind()
    browser = BrowserClient.for_user(app, None)
    come(browser, "/login", "bob")
    assert not is_in(browser)
    assert not is_in(browser, "bob", peer=ELSEWHERE)
    assert is_in(browser, "bob")
    assert is_in(BrowserClient.for_user(app, "alice"))
    assert is_in(BrowserClient.for_user(app, "alice"), peer=ELSEWHERE)


def test_writing_needs_the_token_of_the_page_as_ever(behind):
    browser = BrowserClient.for_user(behind(), None)
    come(browser, "/login", "bob")
    headers = {"X-Forwarded-User": "bob", "X-Forwarded-For": "198.51.100.7"}
    at_proxy = {"headers": headers, "environ_base": {"REMOTE_ADDR": PROXY}}
    assert browser.http.post("/inbox/read-all", **at_proxy).status_code == 403
    assert browser.http.post("/logout", **at_proxy).status_code == 403
    come(browser, "/inbox", "bob")
    assert browser.post("/inbox/read-all", **at_proxy).status_code == 303


def test_program_with_the_header_alone_is_nobody(behind):
    """Only the sign-in page begins sessions; a program has a token."""
    app = behind()
    assert come(BrowserClient.for_user(app, None), "/api/user/messages", "bob").status_code == 401
    with app.app_context():
        assert db.session.scalars(db.select(UserSession)).all() == []


@pytest.mark.parametrize("user", ["nobody-here", "bob,alice", "bob\x7f", "4", "*", "b\u00f6b", "x" * 500])
def test_who_is_not_known_is_told_so(behind, user):
    answer = come(BrowserClient.for_user(behind(), None), "/login", user.encode("utf-8").decode("latin-1"))
    assert answer.status_code == 401
    assert 'role="alert"' in answer.get_data(as_text=True)


def test_people_are_added_only_if_told_so_and_disabled_ones_stay_out(behind):
    app = behind(proxy_create_users=True)
    assert come(BrowserClient.for_user(app, None), "/login", "Dana").status_code == 303
    with app.app_context():
        assert users.get_by_username("dana").roles == frozenset()
        actions.disable_user(load_actor("bob").user_id, by=SYSTEM, now=clock.now())
    assert come(BrowserClient.for_user(app, None), "/login", "bob").status_code == 401


def test_roles_come_from_their_header_if_there_is_one(behind):
    app = behind(proxy_roles_header="X-Forwarded-Groups")
    come(BrowserClient.for_user(app, None), "/login", "bob", headers={"X-Forwarded-Groups": "viewer, no such role,"})
    with app.app_context():
        assert users.get_by_username("bob").roles == {"viewer"}


def test_signing_out_shows_the_way_out_of_the_proxy(behind):
    app = behind(proxy_sign_out_url="/oauth2/sign_out")
    browser = BrowserClient.for_user(app, None)
    come(browser, "/login", "bob")
    come(browser, "/inbox", "bob")
    at_proxy = {"headers": {"X-Forwarded-User": "bob"}, "environ_base": {"REMOTE_ADDR": PROXY}}
    assert browser.post("/logout", **at_proxy).location == "/signed-out"
    assert 'href="/oauth2/sign_out"' in come(browser, "/signed-out", "bob").get_data(as_text=True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"TRUSTED_PROXY_HOPS": "0"}, "PROXY_SIGN_IN_HEADER"),
        ({"PROXY_SIGN_IN_FROM": ""}, "PROXY_SIGN_IN_FROM"),
        ({"PROXY_SIGN_IN_FROM": "10.0.0.1/8"}, "PROXY_SIGN_IN_FROM"),
        ({"PROXY_SIGN_IN_FROM": "proxy"}, "PROXY_SIGN_IN_FROM"),
        ({"PROXY_SIGN_IN_HEADER": "X_User"}, "PROXY_SIGN_IN_HEADER"),
        ({"PROXY_SIGN_IN_HEADER": "a b"}, "PROXY_SIGN_IN_HEADER"),
        ({"PROXY_SIGN_OUT_URL": "//evil.example"}, "PROXY_SIGN_OUT_URL"),
        ({"PROXY_SIGN_OUT_URL": "javascript:x"}, "PROXY_SIGN_OUT_URL"),
    ],
)
def test_settings_that_would_let_anybody_in_stop_the_start(changes, named):
    given = {
        "TRUSTED_PROXY_HOPS": "1",
        "PROXY_SIGN_IN_HEADER": "X-Forwarded-User",
        "PROXY_SIGN_IN_FROM": "10.0.0.0/8,::1",
    }
    assert Settings.load(given).proxy_sign_in_from == ["10.0.0.0/8", "::1"]
    with pytest.raises(SettingsError, match=f"^{named}: "):
        Settings.load(given | changes)
