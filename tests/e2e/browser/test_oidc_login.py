"""Login at the organisation's provider in a real browser with real workers: redirect, return, live inbox, logout."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.e2e.browser.conftest import DESKTOP_VIEWPORT, PHONE_VIEWPORT
from tests.support.http_session import HttpSession
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, OidcProvider, serve_oidc_provider
from tests.support.system import System

pytestmark = [pytest.mark.e2e, pytest.mark.alike]


@pytest.fixture
def openid() -> Iterator[OidcProvider]:
    with serve_oidc_provider() as running:
        running.has_consent_page = True
        yield running


@pytest.fixture
def organised(own_system, openid: OidcProvider) -> System:
    settings = {"OIDC_ISSUER": openid.issuer, "OIDC_CLIENT_ID": CLIENT_ID, "OIDC_CLIENT_SECRET": CLIENT_SECRET}
    return own_system(**settings, OIDC_LINK_USERS="everybody", OIDC_LABEL="Sign in at Example & Sons")


def test_person_signs_in_there_listens_here_and_signs_out_of_both(sit_down, organised: System, openid: OidcProvider):
    desk = sit_down(None, at=organised)
    page = desk.page
    page.goto("/inbox?view=unread")
    page.get_by_role("link", name="Sign in at Example & Sons").click()
    expect(page).to_have_title("Sign in")
    assert page.url.startswith(f"{openid.issuer}/authorize")
    page.get_by_role("link", name="I am Bob").click()
    page.wait_for_url(re.compile(r"/inbox\?view=unread$"))
    desk.expect_live()

    alice = HttpSession(organised, token=organised.get_token("alice", "admin"))
    broadcast_id = alice.publish("Everybody is here")
    alice.close()
    expect(desk.card(broadcast_id)).to_be_visible()

    page.get_by_label("Account of Bob").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    page.get_by_role("link", name="Sign out of your organisation too").click()
    expect(page).to_have_title("Left")
    page.goto("/inbox")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


@pytest.mark.parametrize("size", [DESKTOP_VIEWPORT, PHONE_VIEWPORT], ids=["wide", "narrow"])
def test_provider_that_is_away_leaves_the_form(sit_down, organised: System, openid: OidcProvider, size):
    """And without JavaScript, as all of this."""
    openid.fault = "500"
    page = sit_down(None, at=organised, viewport=size, java_script_enabled=False).page
    page.goto("/login")
    page.get_by_role("link", name="Sign in at Example & Sons").click()
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    page.get_by_label("Username").fill("alice")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(re.compile(r"/inbox$"))
