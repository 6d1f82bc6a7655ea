"""One message on several surfaces: toast, banner, dialog. Preferences delay or mute alerts, never the message."""

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import (
    DESKTOP_VIEWPORT,
    PHONE_VIEWPORT,
    UserBrowser,
    assert_badge_fits_text,
    close_with_escape,
)
from tests.support.http_session import HttpSession
from tests.support.system import System

pytestmark = [pytest.mark.e2e, pytest.mark.alike]


@pytest.fixture
def preferences(system: System) -> Iterator:
    """Bob's preferences, put back afterwards."""

    def put(**wanted) -> None:
        assert system.call("PUT", "/api/user/preferences", token=system.get_token("bob"), body=wanted)[0] == 200

    yield put
    put()


def away(desk: UserBrowser) -> Page:
    """A page without the list, ready for alerts."""
    with desk.page.expect_response("**/inbox/alerts"):
        desk.page.goto("/preferences")
    desk.expect_live()
    return desk.page


def test_toasts_are_at_most_three_and_lead_to_their_message(sit_down, alice: HttpSession):
    page = away(sit_down("bob"))
    titles = [f"Toast {n} {secrets.token_hex(4)}" for n in range(4)]
    sent = [alice.publish(title) for title in titles]
    expect(page.locator(".toast")).to_have_count(3)
    expect(page.locator(".toast").last).to_contain_text(titles[-1])
    page.locator(".toast").last.hover()
    page.locator(".toast").last.get_by_role("link").click()
    expect(page).to_have_url(f"{page.url.split('/inbox')[0]}/inbox/{sent[-1]}")


def test_high_message_has_a_banner_until_it_is_put_away_and_the_card_stays(sit_down, alice: HttpSession):
    desk = sit_down("bob")
    page = away(desk)
    other_tab = desk.context.new_page()
    other_tab.goto("/preferences")
    desk.expect_live(other_tab)
    sent = alice.publish(f"Banner {secrets.token_hex(4)}", priority="HIGH")
    for tab in (page, other_tab):
        expect(tab.locator(".banner")).to_be_visible()
    with page.expect_response("**/inbox/*/dismiss"):  # else the next page might still be told of it
        page.get_by_role("button", name="Dismiss").click()
    for tab in (page, other_tab):
        expect(tab.locator(".banner")).to_have_count(0)
    desk.open_inbox()
    expect(desk.card(sent)).to_have_attribute("data-unread", "")
    expect(page.locator(".banner")).to_have_count(0)


def test_urgent_message_opens_a_dialog_that_can_wait(sit_down, alice: HttpSession):
    desk = sit_down("bob")
    page = away(desk)
    sent = alice.publish(f"Urgent {secrets.token_hex(4)}", content="Leave the **building**.", priority="URGENT")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("strong")).to_have_text("building")
    expect(dialog.get_by_role("button", name="Read later")).to_be_enabled()  # nothing is pressed in the first second
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    desk.open_inbox()
    expect(desk.card(sent)).to_have_attribute("data-unread", "")


def test_what_must_be_acknowledged_at_once_cannot_be_put_off(sit_down, alice: HttpSession):
    desk = sit_down("bob")
    elsewhere = sit_down("bob")
    for where in (desk, elsewhere):
        away(where)
    only_bob = {"targetType": "SELECTED", "targetIds": ["bob"]}  # it would stand before everybody in every other test
    sent = alice.publish(f"Mandatory {secrets.token_hex(4)}", priority="URGENT", requiresAck=True, **only_bob)
    for where in (desk, elsewhere):
        expect(where.page.get_by_role("dialog")).to_be_visible()
        expect(where.page.get_by_role("button", name="Read later")).to_be_hidden()
    expect(desk.page.get_by_role("dialog").get_by_role("button").first).to_be_enabled()
    for _ in range(2):
        desk.page.keyboard.press("Escape")
        expect(desk.page.get_by_role("dialog")).to_be_visible()
    desk.page.reload()
    desk.page.get_by_role("dialog").get_by_role("button", name="I have read and understood").click()
    for where in (desk, elsewhere):
        expect(where.page.get_by_role("dialog")).to_have_count(0)
    desk.open_inbox()
    expect(desk.card(sent)).to_have_attribute("data-acked", "")


def test_d11_held_alerts_are_told_once_at_the_end_and_only_urgent_breaks_through(
    sit_down, alice: HttpSession, preferences
):
    preferences(doNotDisturbUntil=(datetime.now(UTC) + timedelta(minutes=10)).isoformat())
    desk = sit_down("bob")
    desk.page.clock.install()
    page = away(desk)
    expect(page.locator("#held")).to_contain_text("Alerts held until")
    for n in range(2):
        alice.publish(f"Held {n} {secrets.token_hex(4)}", priority="HIGH")
    alice.publish(f"Not held {secrets.token_hex(4)}", priority="URGENT")
    expect(page.get_by_role("dialog")).to_contain_text("Shown while alerts are held")
    page.get_by_role("button", name="Read later").click()
    desk.expect_unread_bell(3)
    expect(page.locator(".banner")).to_have_count(0)
    expect(page.locator("#held")).to_contain_text("2 waiting")
    page.clock.fast_forward("10:05")
    expect(page.locator(".toast")).to_contain_text("2 messages arrived while alerts were held")
    expect(page.locator("#held")).to_be_hidden()


def test_muted_and_minor_messages_raise_no_alert(sit_down, alice: HttpSession, preferences):
    preferences(mutedCategories=["News"], minimumPriority="HIGH")
    desk = sit_down("bob")
    page = away(desk)
    alice.publish(f"Muted {secrets.token_hex(4)}", category="News", priority="HIGH")
    alice.publish(f"Minor {secrets.token_hex(4)}")
    told = f"Told {secrets.token_hex(4)}"
    alice.publish(told, priority="HIGH")
    expect(page.locator(".banner")).to_have_count(1)
    expect(page.locator(".banner")).to_contain_text(told)
    expect(page.locator(".toast")).to_have_count(0)
    desk.expect_unread_bell(3)


def test_page_behind_a_proxy_that_holds_the_stream_back_says_so_and_asks(sit_down, alice: HttpSession):
    """F17: no first byte within 30 s."""
    desk = sit_down("bob")
    page = desk.page
    page.clock.install()
    page.route("**/inbox/stream*", lambda route: None)  # accepted, and never answered
    with page.expect_request("**/inbox/stream*"):  # else the clock may be over before the page has begun to wait
        page.goto("/inbox")
    page.clock.run_for(36_000)
    expect(page.locator("#connection")).to_contain_text("held back")
    sent = alice.publish(f"Behind a proxy {secrets.token_hex(4)}")
    page.clock.run_for(11_000)
    expect(desk.card(sent)).to_be_visible()


@pytest.mark.parametrize(("scheme", "size"), [("light", DESKTOP_VIEWPORT), ("dark", PHONE_VIEWPORT)])
def test_axe_finds_nothing_in_any_state(sit_down, alice: HttpSession, scheme, size):
    desk = sit_down("bob", color_scheme=scheme, viewport=size)
    page = desk.open_inbox().page
    problems: list[str] = []

    def judge(state: str) -> None:
        found = Axe().run(page).response["violations"]
        problems.extend(f"{state}: {one['id']} {one['nodes'][0]['html'][:160]}" for one in found)

    must = alice.publish(f"Axe must {secrets.token_hex(4)}", requiresAck=True, priority="HIGH")
    plain = alice.publish(f"Axe plain {secrets.token_hex(4)}", content="long\n\n" * 9)
    expect(desk.card(plain)).to_be_visible()
    expect(desk.card(must)).to_be_visible()
    expect(page.locator(".banner")).to_be_visible()
    judge("pinned and banner")
    desk.card(plain).get_by_role("checkbox").check()
    expect(page.locator("#chosen")).to_be_visible()
    judge("selection")
    page.keyboard.press("Escape")
    expect(page.locator("#chosen")).to_be_hidden()
    page.keyboard.press("?")
    expect(page.locator("#keys-sheet")).to_be_visible()
    judge("help sheet")
    close_with_escape(page.locator("#keys-sheet"))
    desk.card(plain).locator("[data-snooze]").click()
    expect(page.locator("#snooze-dialog")).to_be_visible()
    judge("snooze dialog")
    page.get_by_role("button", name="In 1 hour").click()
    expect(page.locator(".toast")).to_be_visible()
    judge("undo toast")
    for path in ("/inbox?view=snoozed", "/inbox?view=archived", "/preferences", f"/inbox/{must}"):
        page.goto(path)
        judge(path)
    alice.publish(f"Axe urgent {secrets.token_hex(4)}", priority="URGENT")
    expect(page.get_by_role("dialog")).to_be_visible()
    judge("urgent dialog")
    page.get_by_role("dialog").get_by_role("button", name="Mark read").click()
    assert not problems, "\n".join(problems)


def test_every_digit_of_the_count_is_in_the_badge(sit_down, alice: HttpSession):
    """At 200 %, too: a page zoomed in is one with half the pixels."""
    half = {side: length // 2 for side, length in DESKTOP_VIEWPORT.items()}
    sizes = [(DESKTOP_VIEWPORT, 1), (half, 2), (PHONE_VIEWPORT, 1), (PHONE_VIEWPORT, 2)]
    pages = [sit_down("alice", viewport=size, device_scale_factor=zoom).page for size, zoom in sizes]
    sent = 0
    for count, text in [(1, "1"), (9, "9"), (10, "10"), (19, "19"), (99, "99"), (100, "99+")]:
        while sent < count:
            alice.publish(f"Counted {secrets.token_hex(4)}", targetType="SELECTED", targetIds=["alice"])
            sent += 1
        for page in pages:
            _expect_every_digit_in_badges(page, text)


def _expect_every_digit_in_badges(page: Page, text: str) -> None:
    for path in ("/console/", "/inbox"):
        page.goto(path)
        badge = page.locator(".bell .badge")
        expect(badge).to_have_text(text)
        assert_badge_fits_text(page, badge)
        box, menu = badge.bounding_box(), page.locator(".menu > summary").bounding_box()
        assert box["x"] + box["width"] <= menu["x"], "the menu covers the badge"
    for number in page.locator(".views .count").all():
        number.scroll_into_view_if_needed()  # a row of views that is too wide scrolls
        assert_badge_fits_text(page, number)
    page.goto("about:blank")  # the next messages are not drawn


def test_quiet_edit_changes_the_text_of_an_open_banner_and_dialog_and_recall_closes_them(sit_down, alice: HttpSession):
    desk = sit_down("bob")
    page = away(desk)
    high = alice.publish(f"Banner {secrets.token_hex(4)}", priority="HIGH")
    urgent = alice.publish(f"Dialog {secrets.token_hex(4)}", priority="URGENT")
    behind = alice.publish(f"Behind {secrets.token_hex(4)}", priority="URGENT")
    expect(page.locator("#urgent")).to_be_visible()
    for id, title in ((high, "Banner as corrected"), (urgent, "Dialog as corrected"), (behind, "Behind as corrected")):
        edit(alice, id, title=title, content="With a **new** text.")
    expect(page.locator(".banner")).to_contain_text("Banner as corrected")
    expect(page.locator(".banner button")).to_have_attribute("aria-label", "Dismiss: Banner as corrected")
    expect(page.locator("#urgent-title")).to_have_text("Dialog as corrected")
    expect(page.locator("#urgent-body strong")).to_have_text("new")
    expect(page.locator("#urgent-title")).to_be_focused()
    page.get_by_role("button", name="Read later").click()
    expect(page.locator("#urgent-title")).to_have_text("Behind as corrected")
    edit(alice, behind, priority="LOW")
    expect(page.locator("#urgent")).to_be_hidden()
    alice.send("DELETE", f"/api/admin/broadcasts/{high}", {"reason": "A mistake"})
    expect(page.locator(".banner")).to_have_count(0)


@pytest.mark.parametrize(
    ("priority", "place"), [("NORMAL", ".toast"), ("HIGH", ".banner"), ("URGENT", "#urgent[open]")]
)
@pytest.mark.parametrize("put_away", ["dismissed", "archived", "snoozed"])
def test_shown_again_it_reaches_who_was_away_in_any_browser(
    sit_down, system: System, alice: HttpSession, priority, place, put_away
):
    title = f"Away {secrets.token_hex(4)}"
    sent = alice.publish(title, priority=priority)
    bob = HttpSession.sign_in(system, "bob")
    verbs = {"dismissed": ("dismiss", {}), "archived": ("archive", {}), "snoozed": ("snooze", {"preset": "tomorrow"})}
    verb, form = verbs[put_away]
    assert bob.post(f"/inbox/{sent}/{verb}", **form).status == 303
    bob.close()
    desk, elsewhere = sit_down("bob"), sit_down("bob")
    expect(away(desk).locator(place).filter(has_text=title)).to_have_count(0)
    desk.page.goto("about:blank")
    edit(alice, sent, title=f"{title} again", notifyAgain=True)
    if priority == "NORMAL":
        elsewhere.page.clock.install()
    for one in (desk, elsewhere):
        one.page.goto("/inbox")
        expect(one.page.locator(place).filter(has_text=f"{title} again")).to_be_visible()
        expect(one.card(sent)).to_have_attribute("data-unread", "")
    if priority == "URGENT":
        desk.page.get_by_role("button", name="Read later").click()
    else:
        desk.page.get_by_role("button", name=f"Dismiss: {title} again").click()
    if priority == "NORMAL":
        elsewhere.page.clock.fast_forward("00:30")  # a toast leaves by itself, after some seconds
    for one in (desk, elsewhere):
        expect(one.page.locator(place).filter(has_text=title)).to_have_count(0)


def edit(alice: HttpSession, id: int, **changes) -> None:
    version = alice.get(f"/api/admin/broadcasts/{id}").headers["ETag"]
    assert alice.send("PATCH", f"/api/admin/broadcasts/{id}", changes, If_Match=version).status == 200
