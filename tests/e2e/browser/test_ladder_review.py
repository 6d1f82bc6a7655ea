"""The timeline of the review in a browser, at the width of a phone."""

from playwright.sync_api import expect

from tests.e2e.browser.conftest import fill_compose_form, go_to_step
from tests.support.http_session import HttpSession

PHONE = {"width": 390, "height": 844}


def test_review_shows_the_ladder_at_the_width_of_a_phone(sit_down, alice: HttpSession):
    page = sit_down("alice", viewport=PHONE).page
    fill_compose_form(page, "Lifts", "They stand.")
    page.get_by_label("Priority").select_option("URGENT")
    go_to_step(page, "review")
    timeline = page.locator("#review .timeline li")
    expect(page.get_by_role("heading", name="Who is reached, and when")).to_be_visible()
    expect(timeline.first).to_contain_text("by page")
    expect(timeline.nth(2)).to_contain_text("After 2 minutes")
    page.locator("#review .unreached summary").click()
    expect(page.locator("#review .unreached").get_by_role("link", name="Bob")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
