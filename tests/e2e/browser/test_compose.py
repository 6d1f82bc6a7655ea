"""Composing: live preview and recipient count, errors at their fields, and one click sends one broadcast."""

import re
import secrets

import pytest
from playwright.sync_api import expect

from tests.e2e.browser.conftest import choose_audience, click_send, fill_compose_form, go_to_step, send_broadcast
from tests.support.http_session import HttpSession
from tests.support.system import System

pytestmark = [pytest.mark.e2e, pytest.mark.alike]


def test_preview_is_the_real_card_and_follows_the_typing(sit_down, alice: HttpSession):
    page = sit_down("alice").page
    fill_compose_form(page, "A title", "Some **bold** text")
    preview = page.locator("#preview")
    expect(preview.locator(".card-title")).to_have_text("A title")
    expect(preview.locator(".card-body strong")).to_have_text("bold")
    page.get_by_label("Text", exact=True).fill("- now\n- a list")
    expect(preview.locator(".card-body li")).to_have_text(["now", "a list"])
    page.get_by_label("Priority").select_option("HIGH")
    expect(preview.locator(".priority.high")).to_be_visible()
    sent = send_broadcast(page)
    page.goto(f"/inbox/{sent}")
    expect(page.locator(f"#card-{sent} .card-body li")).to_have_text(["now", "a list"])


def test_reach_is_counted_while_the_audience_is_chosen(sit_down, system: System):
    page = sit_down("alice").page
    reach, label = page.locator("#reach"), page.locator("#send-label")
    fill_compose_form(page, "Title", "Text", usernames="bob, charlie")
    expect(reach).to_contain_text("2 people will get this")
    expect(label).to_have_text("Send to 2 people")
    page.get_by_label("Usernames").fill("bob")
    expect(reach).to_contain_text("1 person will get this")
    page.get_by_label("Usernames").fill("bob, nobody-here")
    expect(reach).to_contain_text("nobody-here")
    page.locator("label[for=target-all]").click()
    expect(label).to_have_text(re.compile(r"^Send to [\d,]+ people$"))


def test_mistakes_are_summed_up_with_links_to_the_fields_and_typed_values_are_kept(sit_down):
    desk = sit_down("alice")
    page = desk.page
    fill_compose_form(page, "", "A text without a title")
    page.get_by_label("Priority").select_option("HIGH")
    choose_audience(page, "role")
    click_send(page)
    summary = page.locator("#errors")
    expect(summary).to_be_visible()
    expect(summary.get_by_role("link")).to_have_count(2)
    summary.get_by_role("link").first.click()
    expect(page.get_by_label("Title", exact=True)).to_be_focused()
    expect(page.get_by_label("Text", exact=True)).to_have_value("A text without a title")
    expect(page.get_by_label("Priority")).to_have_value("HIGH")
    expect(page.locator("#target-role")).to_be_checked()
    page.get_by_label("Title", exact=True).fill(title := f"Put right {secrets.token_hex(4)}")
    go_to_step(page, "audience")
    page.locator("input[name=roles][value=ops]").check()
    send_broadcast(page)
    expect(page.get_by_role("heading", name=title).first).to_be_visible()


@pytest.mark.parametrize("javascript", [True, False], ids=["with script", "without script"])
def test_double_click_on_send_makes_one_broadcast(sit_down, system: System, javascript: bool):
    page = sit_down("alice", java_script_enabled=javascript).page
    fill_compose_form(page, title := f"Once {secrets.token_hex(4)}", "Sent by an impatient finger.")
    go_to_step(page, "review")
    page.locator("#send").dblclick()
    page.wait_for_url(re.compile(r"/console/broadcasts/\d+$"))
    listed = system.call(
        "GET", f"/api/admin/broadcasts?q={title.split()[1]}", token=system.get_token("alice", "admin")
    )[1]
    assert [item["title"] for item in listed["items"]] == [title]
