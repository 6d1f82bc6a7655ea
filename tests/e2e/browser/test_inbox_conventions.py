"""Common expectations of an inbox: counts, positions, a label for each state, and accessibility."""

import re
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.browser.conftest import PHONE_VIEWPORT, UserBrowser
from tests.support.http_session import HttpSession
from tests.support.system import System

pytestmark = [pytest.mark.e2e, pytest.mark.alike]

_BADGE = "window.badges = []; Navigator.prototype.setAppBadge = async (count) => { window.badges.push(count); }"
_NO_STORAGE = """for (const name of ['localStorage', 'sessionStorage', 'indexedDB', 'caches']) {
    Object.defineProperty(window, name, { get() { throw new DOMException('Storage is forbidden', 'SecurityError'); } });
}"""
_SMALL_TARGETS = """() => [...document.querySelectorAll(
        'button, summary, select, .button, .views a, .bell, .header-nav a, .card-checkbox')]
    .filter((one) => one.checkVisibility() && !one.closest('.card-reason, .skip-link'))
    .map((one) => [one.textContent.trim() || one.className, one.getBoundingClientRect()])
    .filter(([, box]) => box.width && (box.height < 43.5 || box.width < 43.5))
    .map(([text, box]) => [text, box.width, box.height])"""


@pytest.fixture
def dora(system: System) -> str:
    """Somebody who has never got a message: what other tests left is recalled, as new people see what is still active."""
    alice = HttpSession(system, token=system.get_token("alice", "admin"))
    while active := alice.get("/api/admin/broadcasts?filter=active&limit=200").json["items"]:
        for broadcast in active:
            alice.send("DELETE", f"/api/admin/broadcasts/{broadcast['id']}", {"reason": "The test is over"})
    alice.close()
    return system.create_user("readers")


@pytest.fixture
def preferences(system: System) -> Iterator[Callable[..., None]]:
    """Bob's preferences, put back afterwards."""

    def put(**wanted) -> None:
        assert system.call("PUT", "/api/user/preferences", token=system.get_token("bob"), body=wanted)[0] == 200

    yield put
    put()


def title(word: str) -> str:
    return f"{word} {secrets.token_hex(4)}"


def with_clock(desk: UserBrowser, path: str = "/inbox") -> Page:
    """A page whose time the test moves, once it is live. Streams go on by themselves."""
    desk.page.clock.install()
    with desk.page.expect_response("**/inbox/alerts"):
        desk.page.goto(path)
    desk.expect_live()
    return desk.page


def stop(page: Page) -> None:
    """From now on time passes when the test says so."""
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 3)  # seconds; before a silent stream would be given up


def test_what_is_empty_says_why(sit_down, dora: str):
    page = sit_down(dora).open_inbox().page
    for path, words in {
        "/inbox": "No messages yet",
        "/inbox?view=unread": "You have read everything",
        "/inbox?view=archived": "No archived messages",
        "/inbox?view=snoozed": "No snoozed messages",
        "/inbox?q=marmalade": "Nothing matches",
    }.items():
        page.goto(path)
        expect(page.locator(".empty:visible h2")).to_have_text(words)
    page.get_by_role("link", name="Clear the filters").click()
    expect(page).to_have_url(re.compile("/inbox$"))
    expect(page.locator("#connection")).to_have_attribute("data-state", "live")
    page.context.set_offline(True)
    expect(page.locator(".empty:visible h2")).to_have_text("You are offline")


def test_hundred_unread_are_99_plus_and_the_list_has_an_end(sit_down, alice: HttpSession, dora: str):
    sent = [alice.publish(title("Many"), targetType="SELECTED", targetIds=[dora]) for _ in range(101)]
    desk = sit_down(dora)
    desk.page.add_init_script(_BADGE)
    page = desk.open_inbox().page
    expect(page.locator(".bell .badge")).to_have_text("99+")
    expect(page).to_have_title("(99+) Inbox")
    assert page.evaluate("window.badges.at(-1)") == 101
    expect(page.locator("#feed > article")).to_have_count(30)
    desk.scroll_to(page.locator(".list-end"))
    expect(page.locator(".list-end")).to_have_text("You have reached the end")
    desk.expect_cards(sent[::-1])


def test_new_messages_wait_behind_a_pill_while_somebody_reads(sit_down, alice: HttpSession):
    desk = sit_down("bob").open_inbox()
    first = alice.publish(title("Read now"))
    desk.card(first).focus()
    below = desk.card(first).bounding_box()
    waiting = [alice.publish(title("Waits")) for _ in range(2)]
    expect(desk.page.locator("#pill")).to_have_text("2 new")
    assert (desk.card_ids()[0], desk.card(first).bounding_box()) == (first, below)
    expect(desk.card(first)).to_be_focused()
    desk.expect_unread(3)
    desk.page.locator("#pill").click()
    expect(desk.card(waiting[-1])).to_be_focused()
    desk.expect_first_cards([*waiting[::-1], first])
    expect(desk.page.locator("#pill")).to_be_hidden()


def test_opened_message_is_read_after_a_dwell_unless_reading_is_manual(sit_down, alice: HttpSession, preferences):
    long = "A line.\n\n" * 9
    for reading, unread in [("automatic", 0), ("manual", 1)]:
        sent = alice.publish(title("Long"), content=long)
        preferences(reading=reading)
        desk = sit_down("bob")
        page = with_clock(desk)
        stop(page)
        desk.card(sent).get_by_text("Show more").click()
        expect(desk.card(sent).get_by_text("Show less")).to_be_visible()
        expect(desk.card(sent)).to_have_attribute("data-unread", "")
        page.clock.run_for(2000)
        desk.expect_unread(unread)
        page.goto(f"/inbox/{sent}")
        page.clock.run_for(2000)
        desk.expect_unread_bell(unread) if unread else expect(page.locator(".bell .badge")).to_be_hidden()
    desk.card(sent).get_by_role("button", name="Mark read").click()
    expect(page.locator(".bell .badge")).to_be_hidden()


def test_toast_waits_under_the_pointer_and_leaves_the_focus_alone(sit_down, alice: HttpSession):
    page = with_clock(sit_down("bob"), "/preferences")
    page.get_by_label("Quiet from").or_(page.locator("input[type=time]").first).first.focus()
    focused = page.evaluate("document.activeElement.name")
    alice.publish(title("Toast"))
    toast = page.locator(".toast")
    expect(toast).to_be_visible()
    assert page.evaluate("document.activeElement.name") == focused
    toast.hover()
    page.clock.run_for(30_000)
    expect(toast).to_be_visible()
    stop(page)
    page.mouse.move(5, 5)  # and from now on it counts
    page.clock.run_for(5900)
    expect(toast).to_be_visible()
    page.clock.run_for(200)
    expect(toast).to_have_count(0)


@pytest.mark.parametrize("verb", ["archive", "snooze"])
def test_undo_is_offered_for_eight_seconds(sit_down, alice: HttpSession, verb: str):
    desk = sit_down("bob")
    page = with_clock(desk)
    sent = alice.publish(title(verb))
    desk.card(sent).locator(f".action-{verb}").locator(".action-label").click()
    if verb == "snooze":
        page.get_by_role("button", name="In 1 hour").click()
    undo = page.locator(".toast").get_by_role("button", name="Undo")
    undo.hover()
    stop(page)
    page.mouse.move(5, 5)  # and from now on it counts
    page.clock.run_for(7900)
    expect(undo).to_be_visible()
    page.clock.run_for(200)
    expect(undo).to_have_count(0)


def test_status_line_says_what_came_at_most_every_five_seconds(sit_down, alice: HttpSession):
    desk = sit_down("bob")
    page = with_clock(desk)
    stop(page)
    status = page.get_by_role("status").first
    for n in range(4):
        alice.publish(title(f"Said {n}"))
        desk.expect_unread(n + 1)
    expect(status).to_have_text("1 new message")
    page.clock.run_for(5100)
    expect(status).to_have_text("3 new messages")


def test_connection_is_told_in_words_and_recovery_once(sit_down, alice: HttpSession):
    desk = sit_down("bob").open_inbox()
    page, chip = desk.page, desk.page.locator("#connection .chip-text")
    expect(chip).to_have_text("Live")
    page.context.set_offline(True)
    expect(chip).to_contain_text(re.compile(r"Offline, as of \d\d:\d\d"))
    page.context.set_offline(False)
    expect(chip).to_have_text("Live")
    refused: list[Route] = []
    page.route("**/inbox/stream*", lambda route: (refused.append(route), route.fulfill(status=503)))
    page.route("**/inbox/count", lambda route: route.fulfill(status=503))  # else it would be streams alone that fail
    page.reload()
    expect(chip).to_have_text(re.compile(r"Reconnecting in \d+ s"))
    sent = [alice.publish(title("Meanwhile")) for _ in range(2)]
    tried = len(refused)
    page.locator("#connection").get_by_role("button", name="Retry").click()
    desk.wait_until(lambda: len(refused) > tried, description="another try")
    page.unroute("**/inbox/count")
    page.unroute("**/inbox/stream*")
    expect(chip).to_have_text("Live")
    expect(page.get_by_role("status").first).to_have_text(re.compile("Live again|2 new messages"))
    expect(desk.card(sent[-1])).to_be_visible()
    desk.expect_first_cards(sent[::-1])


def test_without_a_channel_between_them_every_tab_has_its_own_stream(sit_down, alice: HttpSession):
    desk = sit_down("bob")
    desk.context.add_init_script("delete window.BroadcastChannel")
    desk.open_inbox()
    other = desk.context.new_page()
    desk.open_inbox(other)
    desk.wait_until(lambda: set(desk.stream_pages) == {desk.page, other}, description="a stream of each tab")
    sent = alice.publish(title("Both"))
    for page in (desk.page, other):
        expect(desk.card(sent, page)).to_be_visible()
        desk.expect_unread(1, page)


def test_page_works_where_storage_is_forbidden(sit_down, alice: HttpSession):
    desk = sit_down("bob")
    desk.context.add_init_script(_NO_STORAGE)
    desk.open_inbox()
    sent = alice.publish(title("Nothing stored"))
    desk.card(sent).get_by_role("button", name="Mark read").click()
    desk.expect_unread(0)


@pytest.mark.parametrize("hours", [1, -1])
def test_clock_that_is_an_hour_off_misleads_nobody(sit_down, alice: HttpSession, preferences, hours: int):
    now = datetime.now(UTC)
    preferences(doNotDisturbUntil=(now + timedelta(minutes=30)).isoformat())
    desk = sit_down("bob", timezone_id="UTC")
    desk.page.clock.install(time=now + timedelta(hours=hours))
    desk.page.goto("/inbox")
    desk.expect_live()
    expect(desk.page.locator("#held")).to_contain_text(f"{now + timedelta(minutes=30):%H:%M}")
    sent = alice.publish(title("Now"), priority="HIGH")
    expect(desk.card(sent).locator(".card-when")).to_have_text("just now")
    desk.page.reload()
    expect(desk.card(sent).locator(".card-when")).to_have_text("just now")
    expect(desk.page.locator(".banner")).to_have_count(0)


def test_page_of_a_browser_that_slept_through_the_night_is_not_hours_ahead(sit_down, alice: HttpSession):
    desk = sit_down("bob")
    stale = "Object.defineProperty(Performance.prototype, 'timeOrigin', {get: () => Date.now() - 8 * 3600 * 1000})"
    desk.page.add_init_script(stale)
    desk.open_inbox()
    sent = alice.publish(title("This morning"))
    expect(desk.card(sent).locator(".card-when")).to_have_text("just now")


def test_quiet_hours_are_told_in_ones_own_time(sit_down, preferences):
    desk = sit_down("bob", timezone_id="Asia/Kolkata")
    there = datetime.now(UTC) + timedelta(hours=5, minutes=30)
    start, end = there - timedelta(hours=1), there + timedelta(hours=2)
    preferences(quietHours={"from": f"{start:%H:%M}", "to": f"{end:%H:%M}"}, timeZone="Asia/Kolkata")
    desk.open_inbox()
    expect(desk.page.locator("#held")).to_have_text(re.compile(rf"Alerts held until (\w+,? )?{end:%H:%M}"))


def test_times_are_exact_on_demand_and_grow_older_by_themselves(sit_down, alice: HttpSession):
    desk = sit_down("bob", timezone_id="Europe/Berlin")
    page = with_clock(desk)
    sent = alice.publish(title("Ages"))
    time = desk.card(sent).locator(".card-when time")
    expect(time).to_have_text("just now")
    expect(time).to_have_attribute("title", re.compile(r"^\w{3} \d+ \w{3,4} \d{4}, \d\d:\d\d (CET|CEST)$"))
    page.clock.run_for(6 * 60_000)
    expect(time).to_have_text(re.compile(r"^[56] min ago$"))


@pytest.mark.parametrize(("width", "scale"), [(640, 2), (320, 4)], ids=["200 %", "400 %"])
def test_zoomed_page_needs_no_sideways_scrolling(sit_down, alice: HttpSession, width: int, scale: int):
    desk = sit_down("bob", viewport={"width": width, "height": 450}, device_scale_factor=scale).open_inbox()
    sent = alice.publish(title("Zoomed"), requiresAck=True, category="Long-winded category name", priority="HIGH")
    expect(desk.card(sent)).to_be_visible()
    assert desk.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    desk.card(sent).get_by_role("button", name="I have read and understood").click()
    expect(desk.card(sent)).to_have_attribute("data-acked", "")


def test_targets_are_large_enough_for_a_finger(sit_down, alice: HttpSession):
    desk = sit_down("bob", viewport=PHONE_VIEWPORT, has_touch=True).open_inbox()
    sent = alice.publish(title("Touch"), requiresAck=True, actions=[{"label": "Go", "url": "https://example.org/"}])
    expect(desk.card(sent)).to_be_visible()
    assert desk.page.evaluate(_SMALL_TARGETS) == []


def test_forced_colours_keep_what_colour_says(sit_down, alice: HttpSession):
    desk = sit_down("bob", forced_colors="active").open_inbox()
    sent = alice.publish(title("Forced"), priority="HIGH")
    mark = "(mark) => [getComputedStyle(mark).backgroundColor, getComputedStyle(document.body).backgroundColor]"
    colour, paper = desk.card(sent).locator(".unread-mark").evaluate(mark)
    assert colour != paper
    colour, paper = desk.page.locator(".bell .badge").evaluate(mark)
    assert colour != paper


@pytest.mark.parametrize(("wish", "moves"), [("reduce", False), ("no-preference", True)])
def test_nothing_moves_for_who_wants_no_motion(sit_down, alice: HttpSession, wish: str, moves: bool):
    desk = sit_down("bob", reduced_motion=wish).open_inbox()
    sent = alice.publish(title("Moves"))
    expect(desk.card(sent)).to_be_visible()
    name = desk.card(sent).evaluate("(card) => getComputedStyle(card).animationName")
    assert (name != "none") == moves
