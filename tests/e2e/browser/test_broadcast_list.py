"""The console's list of broadcasts: selecting some of them."""

import secrets

import pytest
from playwright.sync_api import expect

from tests.support.http_session import HttpSession

pytestmark = [pytest.mark.e2e, pytest.mark.alike]


def test_bulk_actions_say_how_many_are_selected(sit_down, alice: HttpSession):
    category = secrets.token_hex(4)
    for n in range(3):
        alice.publish(f"Broadcast {category} {n}", category=category)
    page = sit_down("alice").page
    page.goto(f"/console/broadcasts?category={category}")
    label, buttons = page.locator("#several-bar summary"), page.locator("#several-bar .bulk-actions")
    expect(label).to_have_text("Bulk actions")
    expect(buttons).to_be_hidden()
    page.get_by_label(f"Select Broadcast {category} 1").check()
    expect(label).to_have_text("1 selected")
    expect(buttons).to_be_visible()
    page.get_by_label("Select all on this page").check()
    expect(label).to_have_text("3 selected")
    page.get_by_label("Select all on this page").uncheck()
    expect(label).to_have_text("Bulk actions")
