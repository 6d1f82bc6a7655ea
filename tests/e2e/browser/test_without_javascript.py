"""Everything works with plain forms; JavaScript adds immediacy."""

import re
import secrets

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import UserBrowser, fill_compose_form, recall_broadcast, send_broadcast
from tests.support.http_session import HttpSession
from tests.support.users import TEST_USERS

pytestmark = [pytest.mark.e2e, pytest.mark.alike]


def test_whole_path_by_plain_forms(sit_down, alice: HttpSession):
    boss, bob, charlie = (_sign_in(sit_down, person.username) for person in TEST_USERS)
    mark = secrets.token_hex(4)
    fill_compose_form(boss.page, f"To ops {mark}", "By **form**.", roles=("ops",))
    to_ops = send_broadcast(boss.page)
    fill_compose_form(boss.page, f"To Charlie {mark}", "By name.", usernames="charlie")
    to_charlie = send_broadcast(boss.page)
    fill_compose_form(boss.page, f"To all {mark}", "By nobody's name.")
    to_all = send_broadcast(boss.page)

    for desk, got, not_got in ((bob, to_ops, to_charlie), (charlie, to_charlie, to_ops)):
        desk.page.reload()
        desk.expect_first_cards([to_all, got])
        expect(desk.card(not_got)).to_have_count(0)
        expect(desk.page.locator(".bell .badge")).to_have_text("2")

    bob.card(to_ops).get_by_role("button", name="Mark read").click()
    expect(bob.page).to_have_url(re.compile(r"/inbox$"))
    expect(bob.card(to_ops)).not_to_have_attribute("data-unread", "")
    expect(bob.card(to_all)).to_have_attribute("data-unread", "")
    expect(bob.page.locator(".bell .badge")).to_have_text("1")

    charlie.page.locator("#read-all").click()
    expect(charlie.page.locator(".bell .badge")).to_be_hidden()
    expect(charlie.page.locator("article[data-unread]")).to_have_count(0)

    recall_broadcast(boss.page, to_all, "Sent by mistake")
    bob.page.reload()
    expect(bob.card(to_all)).to_have_count(0)
    expect(bob.card(to_ops)).to_be_visible()

    _sign_out(bob.page)


def test_mistakes_in_the_form_are_named_and_what_was_typed_is_kept(sit_down):
    boss = _sign_in(sit_down, "alice")
    fill_compose_form(boss.page, "", "Only a text", usernames=" ")
    boss.page.locator("#send").click()
    summary = boss.page.locator("#errors")
    expect(summary.get_by_role("link")).to_have_count(2)
    expect(boss.page.get_by_label("Text", exact=True)).to_have_value("Only a text")
    expect(boss.page.locator("#target-selected")).to_be_checked()
    boss.page.get_by_label("Title", exact=True).fill("A title")
    boss.page.get_by_label("Usernames").fill("bob, nobody-here")
    boss.page.locator("#send").click()
    expect(summary).to_contain_text("nobody-here")
    expect(boss.page.get_by_label("Title", exact=True)).to_have_value("A title")
    expect(boss.page.get_by_label("Text", exact=True)).to_have_value("Only a text")
    expect(boss.page.get_by_label("Usernames")).to_have_value("bob, nobody-here")
    expect(boss.page.locator("#target-selected")).to_be_checked()


def _sign_in(sit_down, username: str) -> UserBrowser:
    desk = sit_down(None, java_script_enabled=False)
    desk.page.goto("/inbox")
    expect(desk.page).to_have_url(re.compile(r"/login"))
    desk.page.get_by_label("Username").fill(username)
    desk.page.get_by_label("Password").fill(TEST_USERS[0].password)
    desk.page.get_by_role("button", name="Sign in", exact=True).click()
    expect(desk.page).to_have_url(re.compile(r"/inbox$"))
    return desk


def _sign_out(page: Page) -> None:
    page.locator("details.menu summary").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile(r"/login"))
    page.goto("/inbox")
    expect(page).to_have_url(re.compile(r"/login"))
