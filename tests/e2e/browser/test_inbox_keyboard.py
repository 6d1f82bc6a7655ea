"""The inbox by keyboard alone: as the help sheet says, never while typing, and off where the user turns it off."""

import secrets

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import UserBrowser, close_with_escape
from tests.support.http_session import HttpSession
from tests.support.system import System

pytestmark = [pytest.mark.e2e, pytest.mark.alike]


@pytest.fixture
def inbox(sit_down, alice: HttpSession) -> tuple[UserBrowser, Page, list[int]]:
    """Bob's inbox with three new messages, from its top."""
    desk = sit_down("bob").open_inbox()
    sent = [alice.publish(f"Key {n} {secrets.token_hex(4)}") for n in range(3)]
    expect(desk.card(sent[-1])).to_be_visible()
    desk.page.evaluate("document.querySelectorAll('#pinned article').forEach(card => card.remove())")
    return desk, desk.page, sent[::-1]


def test_keys_move_mark_archive_and_undo_and_the_focus_is_never_lost(inbox):
    desk, page, (first, second, third) = inbox
    keys = page.keyboard
    keys.press("j")
    expect(desk.card(first)).to_be_focused()
    keys.press("ArrowDown")
    expect(desk.card(second)).to_be_focused()
    keys.press("r")
    expect(desk.card(second)).not_to_have_attribute("data-unread", "")
    desk.expect_unread(2)
    expect(desk.card(second)).to_be_focused()
    keys.press("u")
    desk.expect_unread(3)
    expect(desk.card(second)).to_be_focused()
    keys.press("e")
    expect(desk.card(second)).to_have_count(0)
    expect(desk.card(third)).to_be_focused()
    keys.press("k")
    expect(desk.card(first)).to_be_focused()
    keys.press("z")
    expect(desk.card(second)).to_be_visible()
    expect(desk.card(first)).to_be_focused()


def test_select_search_snooze_and_help(inbox):
    desk, page, (first, *_) = inbox
    keys = page.keyboard
    keys.press("?")
    expect(page.locator("#keys-sheet")).to_be_visible()
    close_with_escape(page.locator("#keys-sheet"))
    keys.press("j")
    expect(desk.card(first)).to_be_focused()
    keys.press("x")
    expect(page.locator("#chosen")).to_be_visible()
    keys.press("Escape")
    expect(page.locator("#chosen")).to_be_hidden()
    keys.press("j")
    expect(desk.card(first)).to_be_focused()
    keys.press("s")
    expect(page.locator("#snooze-dialog")).to_be_visible()
    close_with_escape(page.locator("#snooze-dialog"))
    expect(desk.card(first).locator(":focus").or_(page.locator(f"#card-{first}:focus"))).to_have_count(1)
    keys.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    keys.type("jerk")
    expect(page.get_by_label("Search")).to_have_value("jerk")
    desk.expect_unread(3)


def test_acknowledge_and_mark_all_by_key_and_open(inbox, alice: HttpSession):
    desk, page, (first, *_) = inbox
    must = alice.publish(f"Key to acknowledge {secrets.token_hex(4)}", requiresAck=True)
    expect(desk.card(must)).to_be_visible()
    focus(desk, must)
    page.keyboard.press("a")
    expect(page.locator(f"#feed > #card-{must}")).to_contain_text("You acknowledged this")
    page.keyboard.press("Shift+A")
    desk.expect_unread(0)
    focus(desk, first)
    page.keyboard.press("Enter")
    expect(page).to_have_url(desk.system.url + f"/inbox/{first}")


def test_keys_can_be_turned_off(sit_down, system: System, alice: HttpSession):
    token = system.get_token("charlie")
    assert system.call("PUT", "/api/user/preferences", token=token, body={"keys": False})[0] == 200
    desk = sit_down("charlie").open_inbox()
    sent = alice.publish(f"No keys {secrets.token_hex(4)}")
    expect(desk.card(sent)).to_be_visible()
    focus(desk, sent)
    desk.page.keyboard.press("e")
    desk.page.keyboard.press("?")
    expect(desk.page.locator("#keys-sheet")).to_be_hidden()
    expect(desk.card(sent)).to_be_focused()
    assert system.call("PUT", "/api/user/preferences", token=token, body={})[0] == 200
    desk.page.keyboard.press("e")  # the open page has heard of it, or will when it is pressed again
    desk.wait_until(lambda: _archived(desk, sent), description="the key to work again")


def focus(desk: UserBrowser, broadcast_id: int) -> None:
    desk.card(broadcast_id).focus()
    expect(desk.card(broadcast_id)).to_be_focused()


def _archived(desk: UserBrowser, sent: int) -> bool:
    desk.page.evaluate(f"document.getElementById('card-{sent}')?.focus()")  # it may be leaving
    desk.page.keyboard.press("e")
    return desk.card(sent).count() == 0
