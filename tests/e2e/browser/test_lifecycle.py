"""A broadcast's lifecycle in a browser: undone before sending, scheduled, sent, edited, recalled; concurrent edits."""

import re
import secrets
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import click_send, fill_compose_form, go_to_step, recall_broadcast
from tests.support.http_session import HttpSession
from tests.support.system import System
from tests.support.users import TEST_USERS

pytestmark = [pytest.mark.e2e, pytest.mark.alike]
SHOWN = re.compile(r"/console/broadcasts/(\d+)$")
EDITED = re.compile(r"/console/broadcasts/(\d+)/edit")


def id_of(page: Page) -> int:
    return int(re.search(r"/broadcasts/(\d+)", page.url)[1])


def test_compose_undo_and_send_again(sit_down, own_system):
    """What is undone within its moment was seen by nobody; it is a draft again, with every word."""
    system = own_system(UNDO_SECONDS="8")
    boss, bob = sit_down("alice", at=system).page, sit_down("bob", at=system).open_inbox()
    fill_compose_form(boss, "Not like this", "Too early.", roles=("ops",))
    click_send(boss)
    boss.wait_for_url(SHOWN)
    expect(boss.locator("#undo")).to_contain_text(re.compile(r"Sending in \d s"))
    boss.get_by_role("button", name="Undo").click()
    boss.wait_for_url(EDITED)
    expect(boss.get_by_label("Title", exact=True)).to_have_value("Not like this")
    expect(boss.get_by_label("Text", exact=True)).to_have_value("Too early.")
    boss.get_by_label("Title", exact=True).fill("Like this")
    click_send(boss)
    boss.wait_for_url(SHOWN)
    expect(boss.locator(".state.active")).to_be_visible()
    card = bob.card(id_of(boss))
    expect(card).to_be_visible()
    expect(card.locator(".card-title")).to_have_text("Like this")
    head = system.call("GET", "/api/user/messages", token=system.get_token("bob"))[1]["cursor"]
    assert head.endswith("-1"), "the first attempt left nothing in the log"
    bob.expect_cards([id_of(boss)])


def test_schedule_fire_edit_recall(sit_down, alice: HttpSession):
    """Bob's open page follows each step by itself."""
    boss, bob = sit_down("alice").page, sit_down("bob").open_inbox()
    fill_compose_form(boss, title := f"Planned {secrets.token_hex(4)}", "First **text**.")
    go_to_step(boss, "when")
    boss.locator("label[for=when-later]").click()
    boss.get_by_role("button", name="Tomorrow 9:00").click()
    expect(boss.locator("#scheduledAt-hint")).to_contain_text("UTC")
    click_send(boss)
    boss.wait_for_url(SHOWN)
    broadcast_id = id_of(boss)
    expect(boss.locator(".state.scheduled")).to_be_visible()

    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    changed = alice.send("PATCH", f"/api/admin/broadcasts/{broadcast_id}", {"scheduledAt": soon}, If_Match="*")
    assert changed.status == 200, changed.text
    expect(bob.card(broadcast_id)).to_be_visible()
    bob.card(broadcast_id).get_by_role("button", name="Mark read").click()
    expect(bob.card(broadcast_id)).not_to_have_attribute("data-unread", "")

    boss.goto(f"/console/broadcasts/{broadcast_id}")
    boss.get_by_role("link", name="Edit").click()
    boss.get_by_label("Text", exact=True).fill("Second **text**.")
    expect(boss.locator("#difference del")).to_have_text("First")
    expect(boss.locator("#difference ins")).to_have_text("Second")
    boss.get_by_label("Show it again").check()
    boss.locator("#send").click()
    boss.wait_for_url(SHOWN)
    expect(boss.locator(".revisions")).to_contain_text("shown again")
    expect(bob.card(broadcast_id).locator(".card-body")).to_have_text("Second text.")
    expect(bob.card(broadcast_id)).to_have_attribute("data-unread", "")
    expect(bob.card(broadcast_id).locator(".edited")).to_have_text(re.compile(r"Edited \d\d:\d\d"))
    bob.expect_unread(1)

    recall_broadcast(boss, broadcast_id, "Settled")
    expect(bob.card(broadcast_id)).to_have_count(0)
    bob.page.reload()
    assert title not in bob.page.content()


def test_quiet_edit_changes_the_card_where_it_is(sit_down, alice: HttpSession):
    bob = sit_down("bob").open_inbox()
    first, second = alice.publish("First"), alice.publish("Second")
    expect(bob.card(second)).to_be_visible()
    bob.card(first).get_by_role("button", name="Mark read").click()
    bob.expect_unread(1)
    alice.send("PATCH", f"/api/admin/broadcasts/{first}", {"title": "First, put right"}, If_Match="*")
    expect(bob.card(first).locator(".card-title")).to_have_text("First, put right")
    bob.expect_first_cards([second, first])
    bob.expect_unread(1)


@pytest.mark.parametrize("javascript", [True, False], ids=["with script", "without script"])
def test_two_editors_see_both_texts_and_overwrite_nothing(
    sit_down, alice: HttpSession, system: System, javascript: bool
):
    """F20"""
    broadcast_id = alice.publish("Lifts", content="They stand still.")
    hers, his = (sit_down("alice", java_script_enabled=javascript).page for _ in range(2))
    for page, text in ((hers, "They stand still until noon."), (his, "They run again.")):
        page.goto(f"/console/broadcasts/{broadcast_id}/edit")
        page.get_by_label("Text", exact=True).fill(text)
    hers.locator("#send").click()
    hers.wait_for_url(SHOWN)
    his.locator("#send").click()
    expect(his.get_by_role("heading", name="This broadcast changed while you were editing it")).to_be_visible()
    expect(his.locator(".conflict")).to_contain_text("until noon.")
    expect(his.locator(".conflict")).to_contain_text("run again.")
    assert alice.get(f"/api/admin/broadcasts/{broadcast_id}").json["content"] == "They stand still until noon."
    his.get_by_role("button", name="Overwrite with mine").click()
    expect(his.get_by_label("Text", exact=True)).to_have_value("They run again.")
    his.locator("#send").click()
    his.wait_for_url(SHOWN)
    assert alice.get(f"/api/admin/broadcasts/{broadcast_id}").json["content"] == "They run again."


def test_draft_saves_itself_and_is_there_after_a_crash(sit_down, alice: HttpSession):
    page = sit_down("alice").page
    fill_compose_form(page, title := f"Half {secrets.token_hex(4)}", "A thought", usernames="bob, nobody-here")
    expect(page.locator("#saved")).to_have_text(re.compile(r"Saved \d\d:\d\d"))
    page.wait_for_url(EDITED)
    other = sit_down("alice").page
    other.goto(page.url)
    expect(other.get_by_label("Title", exact=True)).to_have_value(title)
    go_to_step(other, "audience")
    expect(other.get_by_label("Usernames")).to_have_value("bob, nobody-here")
    other.get_by_label("Usernames").fill("bob")
    other.keyboard.press("Control+s")
    expect(other.locator("#saved")).to_have_text(re.compile(r"Saved \d\d:\d\d"))
    page.get_by_label("Usernames").fill("charlie")
    expect(page.locator("#saved")).to_contain_text("Someone else changed this draft")
    page.locator("#save").click()
    expect(page.get_by_role("heading", name="This broadcast changed while you were editing it")).to_be_visible()


def test_urgent_to_everyone_asks_for_the_password_again(sit_down):
    page = sit_down("alice").page
    fill_compose_form(page, "Fire drill", "Now.")
    page.get_by_label("Priority").select_option("URGENT")
    click_send(page)
    expect(page.locator("#errors")).to_contain_text("Tick the box to confirm")
    go_to_step(page, "review")
    page.get_by_label("I understand").check()
    page.get_by_label("Your password").fill("wrong")
    page.locator("#send").click()
    expect(page.locator("#errors")).to_contain_text("password is incorrect")
    go_to_step(page, "review")
    page.get_by_label("I understand").check()
    page.get_by_label("Your password").fill(TEST_USERS[0].password)
    page.locator("#send").click()
    page.wait_for_url(SHOWN)


def test_people_are_found_by_name_and_lists_are_judged_row_by_row(sit_down, tmp_path):
    page = sit_down("alice").page
    fill_compose_form(page, "T", "C", usernames="charlie")
    page.get_by_label("Find people").fill("Bo")
    page.locator("[data-add=bob]").click()
    expect(page.get_by_label("Usernames")).to_have_value("charlie\nbob")
    (tmp_path / "list.csv").write_text("Name,Username\nAlice A,alice\nNo One,nobody-here\nBob,bob\nEmpty,\n")
    page.locator("#names-file").set_input_files(tmp_path / "list.csv")
    report = page.locator("#names-report")
    expect(report).to_contain_text("2 people added")
    expect(report).to_contain_text("Row 3: nobody-here")
    expect(report).to_contain_text("Row 5")
    expect(page.get_by_label("Usernames")).to_have_value("charlie\nbob\nalice")
    expect(page.locator("#reach")).to_contain_text("3 people will get this")
