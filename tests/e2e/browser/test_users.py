"""Users, tokens, the audit and analytics in a real browser."""

import re
import secrets

import pytest
from playwright.sync_api import expect

from tests.e2e.browser.conftest import DESKTOP_VIEWPORT, PHONE_VIEWPORT
from tests.support.http_session import HttpSession
from tests.support.system import System

pytestmark = [pytest.mark.e2e, pytest.mark.alike]


def test_person_is_added_given_a_password_signs_in_and_is_disabled_while_looking(sit_down, system: System):
    """From nobody to a live inbox, and out of it within a second of the press."""
    page, username = sit_down("alice").page, f"erin{secrets.token_hex(3)}"
    page.goto("/console/people/new")
    page.get_by_label("Username").fill(username)
    page.get_by_label("Name shown to others").fill("Erin Evans")
    page.locator("input[name=roles][value=ops]").check()
    page.get_by_role("button", name="Add user").click()
    expect(page.locator("h1")).to_have_text("Erin Evans")
    page.get_by_text("Reset password").click()
    page.get_by_role("button", name="Generate new password").click()
    password = page.locator(".secret-value").inner_text()

    erin = sit_down(None)
    erin.page.goto("/login")
    erin.page.get_by_label("Username").fill(username)
    erin.page.get_by_label("Password").fill(password)
    erin.page.get_by_role("button", name="Sign in", exact=True).click()
    erin.expect_live()

    page.get_by_text("Disable account").click()
    page.get_by_role("button", name="Disable Erin Evans").click()
    expect(page.locator("main .eyebrow")).to_contain_text("Disabled")
    expect(erin.page).to_have_url(re.compile("/login"))


def test_table_is_checked_then_imported(sit_down):
    page, name = sit_down("alice").page, f"f{secrets.token_hex(3)}"
    page.goto("/console/people/import")
    page.get_by_label("Or paste the rows").fill(f"username,name,roles\n{name},Frank,ops\nbob,,\n")
    page.get_by_role("button", name="Check only").click()
    expect(page.locator("#report")).to_contain_text("will be added")
    expect(page.locator("#report")).to_contain_text("called bob already")
    page.get_by_role("button", name="Import users").click()
    expect(page.locator("#report")).to_contain_text("was added")
    page.goto(f"/console/people?q={name}")
    expect(page.locator(".user-link")).to_have_count(1)


def test_token_is_made_and_revoked(sit_down):
    page, label = sit_down("alice").page, f"Dashboard {secrets.token_hex(3)}"
    page.goto("/console/tokens?user=bob")
    page.get_by_label("Description").fill(label)
    page.get_by_role("button", name="Create token").click()
    expect(page.locator(".secret-value")).to_have_text(re.compile("^bms_"))
    row = page.get_by_role("row", name=label)
    expect(row).to_contain_text("Active")
    row.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("row", name=label)).to_contain_text("Revoked")


def test_forced_sign_out_tells_why_and_ends_open_pages(sit_down, alice: HttpSession):
    desk = sit_down("charlie").open_inbox()
    sent = alice.publish(
        f"Sign in again {secrets.token_hex(3)}", targetType="SELECTED", targetIds=["charlie"], closeSessions=True
    )
    expect(desk.page).to_have_url(re.compile("/login"))
    back = sit_down("charlie").open_inbox()
    expect(back.card(sent)).to_be_visible()


def test_funnel_follows_the_reader_and_the_reminder_reaches_only_who_has_not_read(sit_down, alice: HttpSession):
    sent = alice.publish(
        title := f"Please read {secrets.token_hex(3)}", targetType="SELECTED", targetIds=["bob", "charlie"]
    )
    page, bob, charlie = sit_down("alice").page, sit_down("bob").open_inbox(), sit_down("charlie").open_inbox()
    page.goto(f"/console/broadcasts/{sent}")
    expect(page.locator(".chart")).to_be_visible()
    bob.card(sent).get_by_role("button", name="Mark read").click()
    read = page.locator("#stats .funnel-step", has_text="Read").last
    expect(read.locator(".funnel-count")).to_have_text("1")
    page.get_by_role("link", name="Who has read it").click()
    expect(page.get_by_role("table").last).to_contain_text("Charlie")
    expect(page.get_by_role("table").last).not_to_contain_text("Bob")
    page.get_by_role("button", name="Remind 1 person").click()
    expect(page.locator(".notice")).to_contain_text("Reminded 1 person")
    expect(page.locator(".reminder")).to_contain_text("You can send another one")
    expect(charlie.card(sent)).to_have_attribute("data-reminder", "")
    expect(charlie.page.locator("#status")).to_contain_text(f"Reminder: {title}")
    charlie.expect_unread(1)
    assert bob.card(sent).get_attribute("data-reminder") is None


def test_audit_is_filtered_and_loaded_further(sit_down, system: System):
    page = sit_down("alice").page
    page.goto("/console/audit")
    page.get_by_label("Action starts with").fill("person.created")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tbody tr").first).to_contain_text("person.created")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert "is unchanged since its export" in system.run_flask("verify-csv", str(download.value.path()))
    assert "none changed" in system.run_flask("audit", "verify")


def test_navigation_shows_where_one_is_on_a_phone(sit_down):
    page = sit_down("alice", viewport=PHONE_VIEWPORT).page
    for navigation, where in (("System", "Rules"), ("Console", "Audit"), ("System", "Health")):
        page.goto(f"/console/{where.lower()}")
        here = page.get_by_role("navigation", name=navigation).get_by_role("link", name=where, exact=True)
        expect(here).to_have_attribute("aria-current", "page")
        expect(here).to_be_in_viewport(ratio=1)
        here.click(trial=True)  # nothing lies over it
    assert page.evaluate("scrollY") == 0


@pytest.mark.parametrize("address", ["/console/audit", "/console/audit?who=nobody"], ids=["all", "filtered"])
def test_filters_of_the_audit_stand_in_one_row_with_labels_of_one_height(sit_down, address: str):
    page = sit_down("alice", viewport=DESKTOP_VIEWPORT).page
    page.goto(address)
    for parts in ("label", ":is(input, select, .button)"):
        boxes = [part.bounding_box() for part in page.locator(f".toolbar {parts}").all()]
        assert len({(box["y"], box["height"]) for box in boxes}) == 1, boxes
    page.set_viewport_size(PHONE_VIEWPORT)
    since, until = (page.get_by_label(name).bounding_box() for name in ("From", "To"))
    assert since["y"] == until["y"]
    assert until["x"] + until["width"] <= PHONE_VIEWPORT["width"]
