"""Elements that appear while the user is about to click something else: nothing is clicked by mistake or lost."""

import secrets

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.browser.conftest import DESKTOP_VIEWPORT, PHONE_VIEWPORT, UserBrowser, fill_compose_form, go_to_step
from tests.support.http_session import HttpSession
from tests.support.system import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.alike]

ONLY_BOB = {"targetType": "SELECTED", "targetIds": ["bob"]}
BOTH_WIDTHS = pytest.mark.parametrize("size", [DESKTOP_VIEWPORT, PHONE_VIEWPORT], ids=["wide", "narrow"])


def a(title: str) -> str:
    """The title, with what tells it from that of another test: published twice under one title is published once."""
    return f"{title} {secrets.token_hex(4)}"


def mandatory(alice: HttpSession, **changes) -> int:
    return alice.publish(a("Mandatory"), priority="URGENT", requiresAck=True, **ONLY_BOB | changes)


def acknowledged(alice: HttpSession, broadcast_id: int) -> int:
    return alice.get(f"/api/admin/broadcasts/{broadcast_id}/stats").json["acknowledged"]


def away(desk: UserBrowser, path: str = "/preferences") -> Page:
    """A page that is ready for alerts."""
    with desk.page.expect_response("**/inbox/alerts"):
        desk.page.goto(path)
    desk.expect_live()
    return desk.page


def focused(page: Page) -> str:
    """Tag, id and classes of what has the focus."""
    return page.evaluate(
        "`${document.activeElement.localName}#${document.activeElement.id}.${document.activeElement.className}`"
    )


def expect_focus_in(page: Page, selector: str) -> None:
    expect(page.locator(f"{selector}:focus-within, {selector}:focus").first).to_be_attached()


# ---- typing


@pytest.mark.parametrize("field", ["#q", "#content"])
def test_urgent_message_takes_no_letter_of_who_types_and_presses_nothing(sit_down, alice: HttpSession, field: str):
    desk = sit_down("bob" if field == "#q" else "alice")
    page = away(desk, "/inbox" if field == "#q" else "/console/broadcasts/new")
    everyone = {"targetType": "SELECTED", "targetIds": ["bob", "alice"]}
    page.locator(field).focus()
    page.keyboard.type("before ")
    sent = mandatory(alice, **everyone)
    for _ in range(400):  # until the message is there, as a banner, and a good while longer
        page.keyboard.type("a ", delay=20)
        if page.locator(".banner").count():
            break
    expect(page.locator(".banner")).to_be_visible()
    expect(page.locator("#urgent")).to_be_hidden()
    page.keyboard.type("a space and \n" if field == "#content" else "a space and ")
    typed = page.locator(field).input_value()
    assert typed.startswith("before a a")
    assert typed.rstrip().endswith("a space and")
    expect(page.locator("#urgent")).to_be_visible()  # once they pause
    expect(page.locator("#urgent-title")).to_be_focused()
    expect(page.locator(".banner")).to_have_count(0)
    page.keyboard.type(" on ")  # without looking
    assert page.locator(field).input_value() == typed + " on "
    for key in ("Space", "Enter", "Escape"):
        page.keyboard.press(key)
    expect(page.locator("#urgent")).to_be_visible()
    assert acknowledged(alice, sent) == 0
    page.get_by_role("button", name="I have read and understood").last.click()
    expect(page.locator("#urgent")).to_be_hidden()
    wait_for(lambda: acknowledged(alice, sent) == 1, description="the acknowledgement")
    expect(page.locator(field)).to_be_focused()


def test_dialog_takes_no_key_and_no_press_in_its_first_second(sit_down, alice: HttpSession):
    desk = sit_down("bob")
    page = away(desk)
    page.evaluate(
        """() => new MutationObserver((_, watcher) => {
          const dialog = document.getElementById("urgent");
          if (!dialog.open) return;
          watcher.disconnect();
          for (const button of dialog.querySelectorAll("button")) button.click();
          window.pressedAtOnce = true;
        }).observe(document.getElementById("urgent"), { attributes: true })"""
    )
    sent = alice.publish(a("Urgent"), priority="URGENT", **ONLY_BOB)
    desk.wait_until(lambda: page.evaluate("window.pressedAtOnce"))
    for key in ("Space", "Enter", "Escape", "Tab", "Space"):
        page.keyboard.press(key)
    expect(page.locator("#urgent")).to_be_visible()
    page.get_by_role("button", name="Read later").click()  # waits until it may be pressed
    expect(page.locator("#urgent")).to_be_hidden()
    desk.open_inbox()
    expect(desk.card(sent)).to_have_attribute("data-unread", "")


def test_key_that_acknowledges_is_not_meant_for_the_card_that_took_the_place(sit_down, alice: HttpSession):
    first, second = (alice.publish(a(n), requiresAck=True, **ONLY_BOB) for n in "12")
    desk = sit_down("bob").open_inbox()
    top = desk.page.locator("#pinned > article").first
    top.focus()
    for _ in range(4):
        desk.page.keyboard.down("a")  # held down
    desk.page.keyboard.up("a")
    expect(desk.page.locator("#pinned > article")).to_have_count(1)
    wait_for(lambda: acknowledged(alice, first) + acknowledged(alice, second) == 1, description="one acknowledgement")
    expect_focus_in(desk.page, "#inbox-list")


def test_second_press_of_a_double_click_on_next_does_not_send(sit_down, alice: HttpSession):
    page = sit_down("alice").page
    title = a("Double")
    fill_compose_form(page, title, "Text", usernames="bob")
    go_to_step(page, "when")
    page.locator("#next").dblclick()
    expect(page.locator("#send")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#send")).to_be_enabled()
    assert title not in [one["title"] for one in alice.get("/api/admin/broadcasts?filter=active").json["items"]]


# ---- in view


@BOTH_WIDTHS
def test_banner_that_comes_while_the_page_is_scrolled_is_in_view_and_hides_nothing_of_the_bar(
    sit_down, alice: HttpSession, size
):
    for n in range(12):
        alice.publish(a(f"Filling {n}"), content="line\n\n" * 4, **ONLY_BOB)
    desk = sit_down("bob", viewport=size).open_inbox()
    page = desk.page
    page.mouse.wheel(0, 1500)
    desk.wait_until(lambda: page.evaluate("scrollY > 1000"))
    titles = [f"{a(str(n))} " + "a long title " * 8 for n in range(3)]
    for title in titles:
        alice.publish(title.strip(), priority="HIGH", **ONLY_BOB)
    expect(page.locator(".banner")).to_have_count(3)
    bar = page.locator(".header").bounding_box()
    assert bar["y"] == 0
    for banner in page.locator(".banner").all():
        box = banner.bounding_box()
        assert 0 < box["y"] <= bar["height"] + 1 - box["height"] <= size["height"] / 2
        assert 0 <= box["x"] <= size["width"] - box["width"]
    assert page.locator(".bell").bounding_box()["y"] >= 0
    for title in titles:
        page.get_by_role("button", name=f"Dismiss: {title.strip()}").click()
        assert not focused(page).startswith("body")
    expect(page.locator(".banner")).to_have_count(0)
    expect(page.locator("#list-title")).to_be_focused()


@BOTH_WIDTHS
def test_pill_leads_to_the_new_card_below_the_bar_and_all_that_is_counted_is_marked_read(
    sit_down, alice: HttpSession, size
):
    alice.publish(a("To acknowledge"), content="line\n\n" * 9, requiresAck=True, **ONLY_BOB)
    for n in range(12):
        alice.publish(a(f"Filling {n}"), content="line\n\n" * 4, **ONLY_BOB)
    desk = sit_down("bob", viewport=size).open_inbox()
    page = desk.page
    page.mouse.wheel(0, 1500)
    desk.wait_until(lambda: page.evaluate("scrollY > 1000"))
    sent = [alice.publish(a(f"Arriving {n}"), **ONLY_BOB) for n in range(3)]
    expect(page.locator("#pill")).to_contain_text("3 new")
    desk.expect_unread(16)
    page.locator("#pill").click()
    expect(desk.card(sent[-1])).to_be_focused()
    top, bar = desk.card(sent[-1]).bounding_box(), page.locator(".header").bounding_box()
    assert bar["height"] <= top["y"] <= size["height"] / 2
    page.mouse.wheel(0, 1500)
    desk.wait_until(lambda: page.evaluate("scrollY > 1000"))
    late = alice.publish(a("Behind the pill"), **ONLY_BOB)
    expect(page.locator("#pill")).to_contain_text("1 new")
    desk.expect_unread(17)
    page.evaluate("document.querySelector('.read-all').requestSubmit()")
    desk.expect_unread(0)
    page.locator("#pill").click()
    expect(desk.card(late)).to_be_visible()
    expect(desk.card(late)).not_to_have_attribute("data-unread", "")
    expect(desk.card(late)).to_have_count(1)


def test_list_with_nothing_unread_in_it_marks_read_what_waits_behind_the_pill(sit_down, alice: HttpSession):
    shown = alice.publish(a("Read"), **ONLY_BOB)
    desk = sit_down("bob").open_inbox()
    page = desk.page
    desk.card(shown).get_by_role("button", name="Mark read").click()
    desk.expect_unread(0)
    expect(desk.card(shown)).to_be_focused()  # so that arrivals wait
    for n in range(3):
        alice.publish(a(f"Waiting {n}"), **ONLY_BOB)
    expect(page.locator("#pill")).to_contain_text("3 new")
    desk.expect_unread(3)
    page.get_by_role("button", name="Mark 3 read").click()
    desk.expect_unread(0)


# ---- the focus


def test_focus_goes_to_the_next_thing_after_every_act(sit_down, alice: HttpSession):
    old = [alice.publish(a(f"Old {n}"), **ONLY_BOB) for n in range(34)]
    sent = [alice.publish(a(f"Act {n}"), requiresAck=n == 0, **ONLY_BOB) for n in range(6)]
    desk = sit_down("bob").open_inbox()
    page = desk.page

    def expect_focus(place: Locator) -> None:
        expect(place).to_be_focused()

    desk.card(sent[0]).get_by_role("button", name="I have read and understood").click()
    expect_focus(desk.card(sent[0]))
    desk.card(sent[4]).get_by_role("button", name="Archive").click()
    expect_focus(desk.card(sent[3]))
    page.get_by_role("button", name="Undo").click()
    expect_focus(desk.card(sent[4]))
    desk.card(sent[3]).get_by_role("button", name="Mark read").focus()
    alice.send("DELETE", f"/api/admin/broadcasts/{sent[3]}", {"reason": "Recalled while it has the focus"})
    expect(desk.card(sent[3])).to_have_count(0)
    expect_focus(desk.card(sent[2]))
    desk.card(sent[5]).get_by_role("checkbox").check()
    page.locator("#chosen").get_by_role("button", name="Archive").click()
    expect(desk.card(sent[5])).to_have_count(0)
    desk.wait_until(lambda: page.evaluate("document.activeElement !== document.body"))
    more = page.locator("#load-more")
    before = page.locator("#feed > article").count()
    more.focus()
    page.keyboard.press("Enter")
    desk.wait_until(lambda: page.evaluate(f"document.querySelectorAll('#feed > article').length > {before}"))
    expect_focus(page.locator("#feed > article").nth(before))
    assert old
    page.get_by_label("Search").fill("Old 3")
    page.keyboard.press("Enter")
    page.wait_for_url("**/inbox?*q=Old*")
    expect_focus(page.locator("#list-title"))
    page.get_by_role("link", name="Show all").click()
    expect_focus(page.locator("#list-title"))
    alice.publish(banner := a("A banner to dismiss"), priority="HIGH", **ONLY_BOB)
    page.get_by_role("button", name=f"Dismiss: {banner}").click()
    expect_focus(page.locator("#list-title"))
    alice.publish(dialog := a("A dialog to put off"), priority="URGENT", **ONLY_BOB)
    page.get_by_role("button", name="Read later").click()
    expect(page.locator("#urgent")).to_be_hidden()
    desk.wait_until(lambda: page.evaluate("document.activeElement !== document.body"))
    page.get_by_role("link", name=dialog, exact=True).click()
    page.locator(".card.standalone").get_by_role("button", name="Archive").click()
    page.wait_for_url("**/inbox")
    expect_focus(page.locator("#list-title"))
    expect(page.get_by_role("button", name="Undo")).to_be_visible()


def test_recall_of_the_message_that_is_open_says_so_and_takes_its_dialog_away(sit_down, alice: HttpSession):
    desk = sit_down("bob")
    sent = alice.publish(a("Alone"), priority="URGENT", **ONLY_BOB)
    page = away(desk, f"/inbox/{sent}")
    other = alice.publish(a("Other"), priority="URGENT", **ONLY_BOB)
    expect(page.locator("#urgent")).to_be_visible()
    for id in (other, sent):
        alice.send("DELETE", f"/api/admin/broadcasts/{id}", {"reason": "A mistake"})
    expect(page.locator("#urgent")).to_be_hidden()
    expect(page.locator(".notice.standalone")).to_be_focused()
    expect(desk.card(sent)).to_have_count(0)
