"""Composed in the console, live in the inbox: every open page of the audience shows it, and no other page."""

import secrets

import pytest
from playwright.sync_api import expect

from tests.e2e.browser.conftest import fill_compose_form, recall_broadcast, send_broadcast
from tests.support.http_session import HttpSession
from tests.support.system import System

pytestmark = pytest.mark.e2e


def test_each_audience_sees_its_messages_live_and_nobody_else_does(
    sit_down, sit_at_different_workers, system: System, alice: HttpSession
):
    bob, charlie = sit_at_different_workers("bob", "charlie", at=system)
    assert bob.worker != charlie.worker
    console, mark = sit_down("alice"), secrets.token_hex(4)

    fill_compose_form(console.page, f"To all {mark}", "For **everyone**.")
    to_all = send_broadcast(console.page)
    for desk in (bob, charlie):
        expect(desk.card(to_all)).to_be_visible()
        expect(desk.card(to_all).locator("strong")).to_have_text("everyone")
        desk.expect_unread(1)

    fill_compose_form(console.page, f"To ops {mark}", "For the role.", roles=("ops",))
    to_ops = send_broadcast(console.page)
    expect(bob.card(to_ops)).to_be_visible()
    bob.expect_unread(2)

    fill_compose_form(console.page, f"To two {mark}", "For Charlie and Alice.", usernames="charlie, alice")
    to_two = send_broadcast(console.page)
    expect(charlie.card(to_two)).to_be_visible()
    charlie.expect_unread(2)

    fill_compose_form(console.page, f"To all again {mark}", "Sent last: by now the others would be here.")
    last = send_broadcast(console.page)
    for desk, ids in ((bob, [last, to_ops, to_all]), (charlie, [last, to_two, to_all])):
        expect(desk.card(last)).to_be_visible()
        desk.expect_first_cards(ids)
        desk.expect_unread(3)
        assert len(desk.stream_workers) == 1
        desk.page.reload()  # what was streamed is what a reload gives
        desk.expect_first_cards(ids)
        desk.expect_unread(3)


def test_marking_read_is_followed_by_another_tab_and_another_browser_of_the_same_person(sit_down, alice: HttpSession):
    desk = sit_down("bob").open_inbox()
    second_tab = desk.context.new_page()
    desk.open_inbox(second_tab)
    elsewhere = sit_down("bob").open_inbox()
    everywhere = [(desk, desk.page), (desk, second_tab), (elsewhere, elsewhere.page)]
    mark = secrets.token_hex(4)
    sent = [alice.publish(f"To read {n} {mark}") for n in range(3)]
    for where, page in everywhere:
        expect(where.card(sent[-1], page)).to_be_visible()
        where.expect_unread(3, page)

    desk.card(sent[0]).get_by_role("button", name="Mark read").click()
    for where, page in everywhere:
        expect(where.card(sent[0], page)).not_to_have_attribute("data-unread", "")
        expect(where.card(sent[1], page)).to_have_attribute("data-unread", "")
        where.expect_unread(2, page)

    desk.page.locator("#read-all").click()
    for where, page in everywhere:
        for broadcast_id in sent:
            expect(where.card(broadcast_id, page)).not_to_have_attribute("data-unread", "")
        where.expect_unread(0, page)


def test_recall_in_the_console_removes_the_card_from_open_pages(sit_down, alice: HttpSession):
    bob, console = sit_down("bob").open_inbox(), sit_down("alice")
    kept = alice.publish(f"Kept {secrets.token_hex(4)}")
    mistake = alice.publish(f"A mistake {secrets.token_hex(4)}")
    expect(bob.card(mistake)).to_be_visible()
    bob.expect_unread(2)
    recall_broadcast(console.page, mistake, "Sent to the wrong people")
    expect(bob.card(mistake)).to_have_count(0)
    expect(bob.card(kept)).to_be_visible()
    bob.expect_unread(1)


def test_page_left_open_without_the_inbox_still_counts(sit_down, alice: HttpSession):
    """The bell is on every page, the console's too."""
    desk = sit_down("alice")
    desk.page.goto("/console/")
    desk.expect_live()
    alice.publish(f"Seen by the bell {secrets.token_hex(4)}")
    expect(desk.page.locator(".bell .badge")).to_have_text("1")
