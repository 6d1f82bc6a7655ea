"""Broadcasts that end while pages are open move to the view "Ended", as after a reload, and can be opened there."""

import re
import secrets
from datetime import timedelta

import pytest
from playwright.sync_api import expect

from broadcast.domain import clock
from tests.support.http_session import HttpSession

pytestmark = pytest.mark.e2e


def test_message_that_ends_leaves_the_inbox_and_is_found_under_ended(sit_down, alice: HttpSession):
    bob, ended_page = sit_down("bob").open_inbox(), sit_down("bob")
    over_at = clock.to_rfc3339(clock.now() + timedelta(seconds=6))
    going = alice.publish(f"Going {secrets.token_hex(4)}", expiresAt=over_at)
    expect(bob.card(going)).to_be_visible()
    ended_page.page.goto("/inbox?view=ended")
    ended_page.expect_live()
    number = bob.page.locator('.views [data-count="ended"]')
    before = int(number.inner_text())

    expect(bob.card(going)).to_have_count(0)
    expect(ended_page.card(going)).to_be_visible()
    for desk in (bob, ended_page):
        expect(desk.page.locator('.views [data-count="ended"]')).to_have_text(str(before + 1))
        desk.page.reload()
        expect(desk.page.locator('.views [data-count="ended"]')).to_have_text(str(before + 1))
    card = ended_page.card(going)
    expect(card.get_by_role("button")).to_have_count(0)
    card.get_by_role("link").first.click()
    expect(ended_page.page.locator(".card.standalone")).to_contain_text("Ended")
    ended_page.page.get_by_role("link", name="Ended").first.click()
    expect(ended_page.page).to_have_url(re.compile(r"view=ended"))


def test_page_of_a_message_says_when_it_ends(sit_down, alice: HttpSession):
    bob = sit_down("bob").open_inbox()
    over_at = clock.to_rfc3339(clock.now() + timedelta(seconds=6))
    going = alice.publish(f"Alone {secrets.token_hex(4)}", expiresAt=over_at)
    expect(bob.card(going)).to_be_visible()
    bob.page.goto(f"/inbox/{going}")
    expect(bob.card(going).get_by_role("button", name=re.compile("Archive"))).to_be_visible()
    expect(bob.card(going)).to_have_attribute("data-ended", "")
    expect(bob.card(going).get_by_role("button")).to_have_count(0)
