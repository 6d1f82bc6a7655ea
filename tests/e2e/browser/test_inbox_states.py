"""An action in one tab shows in every tab and on every device, and a reload shows the same (I11)."""

import re
import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import UserBrowser
from tests.support.http_session import HttpSession
from tests.support.system import System

pytestmark = pytest.mark.e2e


@pytest.fixture
def desks(sit_down, alice: HttpSession) -> list[tuple[UserBrowser, Page]]:
    """Bob in two tabs of one browser, and on a second device."""
    desk = sit_down("bob").open_inbox()
    second = desk.context.new_page()
    desk.open_inbox(second)
    elsewhere = sit_down("bob").open_inbox()
    return [(desk, desk.page), (desk, second), (elsewhere, elsewhere.page)]


def send(alice: HttpSession, desks: list[tuple[UserBrowser, Page]], **draft) -> int:
    sent = alice.publish(f"State {secrets.token_hex(4)}", **draft)
    for desk, page in desks:
        expect(desk.card(sent, page)).to_be_visible()
    return sent


def shape(page: Page) -> tuple:
    """All that a reload must not change: the cards, their states, their texts but for how long ago it was, the counts."""
    read = """() => [...document.querySelectorAll('#inbox-list article')].slice(0, 8).map(card =>
        [card.parentElement.id, card.id, card.hasAttribute('data-unread'), card.hasAttribute('data-acked'),
         card.hasAttribute('data-archived'), card.hasAttribute('data-asleep'), [...card.querySelectorAll('time')].reduce(
            (text, time) => text.replace(time.innerText, ''), card.innerText).replace(/\\s+/g, ' ')])"""
    counts = "() => [...document.querySelectorAll('.views .count')].map(one => one.textContent)"
    return page.evaluate(read), page.evaluate(counts), page.title()


def expect_same_after_reload(desks: list[tuple[UserBrowser, Page]]) -> None:
    """Each page comes by itself to what a page opened now shows, and a reload of it shows the same."""
    desk = desks[0][0]
    opened = desk.context.new_page()
    desk.open_inbox(opened)
    now = shape(opened)
    opened.close()
    for desk, page in desks:
        expect_shape(desk, page, now)
        page.reload()
        desk.expect_live(page)
        expect_shape(desk, page, now)


def expect_shape(desk: UserBrowser, page: Page, wanted: tuple) -> None:
    with suppress(AssertionError):  # the comparison below says what differs
        desk.wait_until(lambda: shape(page) == wanted)
    assert shape(page) == wanted


def press(desk: UserBrowser, broadcast_id: int, name: str) -> None:
    desk.card(broadcast_id).get_by_role("button", name=re.compile(f"^{name}")).click()


def test_i11_each_act_is_followed_everywhere_and_a_reload_shows_the_same(desks, alice: HttpSession):
    """I11"""
    desk = desks[0][0]
    one = send(alice, desks)
    steps = [
        ("Mark read", "data-unread", False),
        ("Mark unread", "data-unread", True),
    ]
    for name, attribute, there in steps:
        press(desk, one, name)
        for where, page in desks:
            expect(where.card(one, page)).to_have_count(1)
            expectation = expect(where.card(one, page))
            (expectation.to_have_attribute if there else expectation.not_to_have_attribute)(attribute, "")
            where.expect_unread(int(there), page)
        expect_same_after_reload(desks)
    press(desk, one, "Archive")
    for where, page in desks:
        expect(where.card(one, page)).to_have_count(0)
        where.expect_unread(0, page)
    expect_same_after_reload(desks)


def test_archive_is_undone_everywhere(desks, alice: HttpSession):
    desk = desks[0][0]
    one, two = send(alice, desks), send(alice, desks)
    press(desk, one, "Archive")
    for where, page in desks:
        expect(where.card(one, page)).to_have_count(0)
    expect(desk.page.locator(".toast")).to_contain_text("1 message archived")
    desk.page.get_by_role("button", name="Undo").click()
    for where, page in desks:
        expect(where.card(one, page)).to_be_visible()
        where.expect_first_cards([two, one], page)
        where.expect_unread(2, page)
    expect(desk.page.locator(".toast")).to_have_count(0)
    expect_same_after_reload(desks)


def test_marking_all_read_is_undone(desks, alice: HttpSession):
    desk = desks[0][0]
    both = [send(alice, desks) for _ in range(2)]
    desk.page.locator("#read-all").click()
    for where, page in desks:
        for one in both:
            expect(where.card(one, page)).not_to_have_attribute("data-unread", "")
        where.expect_unread(0, page)
    desk.page.get_by_role("button", name="Undo").click()
    for where, page in desks:
        for one in both:
            expect(where.card(one, page)).to_have_attribute("data-unread", "")
        where.expect_unread(2, page)
    expect_same_after_reload(desks)


def test_snoozed_message_returns_unread_by_itself(desks, alice: HttpSession, system: System):
    desk = desks[0][0]
    one = send(alice, desks)
    press(desk, one, "Mark read")
    desk.card(one).get_by_role("link", name=re.compile("^Snooze")).click()
    dialog = desk.page.locator("#snooze-dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="In 1 hour").click()
    for where, page in desks:
        expect(where.card(one, page)).to_have_count(0)
        expect(page.locator('[data-count="snoozed"]').first).not_to_have_text("0")
    soon = (datetime.now(UTC) + timedelta(seconds=4)).isoformat()
    body = {"broadcastIds": [one], "until": soon}
    assert system.call("POST", "/api/user/messages/snooze", token=system.get_token("bob"), body=body)[0] == 200
    for where, page in desks:
        expect(where.card(one, page)).to_be_visible()
        expect(where.card(one, page)).to_contain_text("Back from snooze")
        expect(where.card(one, page)).to_have_attribute("data-unread", "")
        where.expect_unread(1, page)
    expect_same_after_reload(desks)


def test_acknowledgement_stands_on_top_until_it_is_given(desks, alice: HttpSession):
    desk = desks[0][0]
    must = send(alice, desks, requiresAck=True, ackDueAt="2098-01-01T00:00:00Z")
    plain = send(alice, desks)
    for where, page in desks:
        expect(page.locator(f"#pinned > #card-{must}")).to_be_visible()
        where.expect_first_cards([plain], page)
    press(desk, must, "I have read and understood")
    for where, page in desks:
        expect(page.locator(f"#feed > #card-{must}")).to_contain_text("You acknowledged this")
        where.expect_first_cards([plain, must], page)
        where.expect_unread(1, page)
    expect_same_after_reload(desks)


def test_views_follow_what_is_done_elsewhere(sit_down, alice: HttpSession):
    """A tab that shows another view gets exactly what that view shows now."""
    desk = sit_down("bob").open_inbox()
    one = send(alice, [(desk, desk.page)])
    archived, unread = desk.context.new_page(), desk.context.new_page()
    archived.goto("/inbox?view=archived")
    unread.goto("/inbox?view=unread")
    for page in (archived, unread):
        desk.expect_live(page)
    expect(desk.card(one, unread)).to_be_visible()
    press(desk, one, "Archive")
    expect(desk.card(one, archived)).to_be_visible()
    expect(desk.card(one, unread)).to_have_count(0)
    desk.card(one, archived).get_by_role("button", name=re.compile("^Move to inbox")).click()
    expect(desk.card(one, archived)).to_have_count(0)
    for page in (desk.page, unread):
        expect(desk.card(one, page)).to_be_visible()


def test_chosen_messages_are_done_together(desks, alice: HttpSession):
    desk = desks[0][0]
    one, two, three = (send(alice, desks) for _ in range(3))
    expect(desk.page.locator("#chosen")).to_be_hidden()
    for chosen in (one, three):
        desk.card(chosen).get_by_role("checkbox").check()
    desk.page.locator("#chosen").get_by_role("button", name="Archive").click()
    for where, page in desks:
        for gone in (one, three):
            expect(where.card(gone, page)).to_have_count(0)
        expect(where.card(two, page)).to_be_visible()
    expect(desk.page.locator("#chosen")).to_be_hidden()


def test_filter_and_search_live_in_the_address_and_mark_only_what_they_show(desks, alice: HttpSession):
    desk = desks[0][0]
    word = f"needle{secrets.token_hex(4)}"
    found = [send(alice, desks, content=f"A {word} in the hay") for _ in range(2)]
    other = send(alice, desks)
    page = desk.page
    page.get_by_label("Search").fill(word)
    page.get_by_role("button", name="Apply").click()
    expect(page).to_have_url(re.compile(f"q={word}"))
    desk.expect_live()
    desk.expect_cards(found[::-1])
    expect(page.locator("#read-all")).to_have_text(re.compile("Mark 2 read"))
    late = alice.publish("Comes while one looks", content=f"Another {word}")
    expect(desk.card(late)).to_be_visible()
    elsewhere = alice.publish("Comes while one looks, and does not match")
    expect(page.locator("#read-all")).to_have_text(re.compile("Mark 3 read"))
    page.locator("#read-all").click()
    expect(page.locator("article[data-unread]")).to_have_count(0)
    where, second = desks[1]
    expect(where.card(other, second)).to_have_attribute("data-unread", "")
    expect(where.card(elsewhere, second)).to_have_attribute("data-unread", "")
    desk.expect_cards([late, *found[::-1]])


def test_message_in_view_is_seen_and_stays_unread_until_it_is_opened(sit_down, alice: HttpSession):
    desk = sit_down("bob").open_inbox()
    one = send(alice, [(desk, desk.page)])

    def figures() -> dict:
        return alice.send("GET", f"/api/admin/broadcasts/{one}/stats").json

    desk.wait_until(lambda: figures()["seen"] == 1, seconds=25, description="the message to be seen")
    assert figures()["read"] == 0
    expect(desk.card(one)).to_have_attribute("data-unread", "")
    desk.card(one).locator(".card-title a").click()
    desk.wait_until(lambda: figures()["read"] == 1, description="the opened message to be read")
    desk.page.go_back()
    desk.expect_unread(0)
