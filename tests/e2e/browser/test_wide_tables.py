"""A table wider than its card scrolls inside the card: checked by bounding boxes."""

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.browser.conftest import DESKTOP_VIEWPORT, PHONE_VIEWPORT
from tests.support.http_session import HttpSession

pytestmark = pytest.mark.e2e

_COLUMNS = 14
_TABLE = "\n".join(
    ["| Unbreakable" * _COLUMNS + " |", "|---" * _COLUMNS + "|", *["| 1234567890123" * _COLUMNS + " |"] * 4]
)
TEXT = f"Words above the table, which stay where they are.\n\n{_TABLE}\n\nWords below it."


def _expect_inside(page: Page, card: Locator) -> None:
    table = card.locator(".prose table")
    expect(table).to_be_visible()
    outer, inner = card.bounding_box(), table.bounding_box()
    assert outer["x"] <= inner["x"]
    assert inner["x"] + inner["width"] <= outer["x"] + outer["width"]
    assert table.evaluate("table => table.scrollWidth > table.clientWidth + 100")
    assert table.evaluate("table => { table.scrollLeft = 80; return table.scrollLeft }") == 80
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    words = card.locator(".prose p").first.bounding_box()
    assert words["x"] + words["width"] <= outer["x"] + outer["width"]


@pytest.mark.parametrize("size", [PHONE_VIEWPORT, DESKTOP_VIEWPORT], ids=["narrow", "wide"])
def test_wide_table_scrolls_inside_its_card(sit_down, alice: HttpSession, size):
    sent = alice.publish("A wide table", content=TEXT)
    bob, boss = sit_down("bob"), sit_down("alice")
    for desk in (bob, boss):
        desk.page.set_viewport_size(size)
    bob.open_inbox()
    _expect_inside(bob.page, bob.card(sent))
    bob.card(sent).locator("[data-more]").click()
    expect(bob.card(sent).locator(".prose p").last).to_be_visible()
    _expect_inside(bob.page, bob.card(sent))
    bob.page.goto(f"/inbox/{sent}")
    _expect_inside(bob.page, bob.card(sent))
    boss.page.goto(f"/console/broadcasts/{sent}")
    _expect_inside(boss.page, boss.page.locator("article.card"))


def test_narrow_table_is_as_wide_as_its_words(sit_down, alice: HttpSession):
    sent = alice.publish("A small table", content="| a | b |\n|---|---|\n| c | d |")
    bob = sit_down("bob")
    bob.page.goto(f"/inbox/{sent}")
    table = bob.card(sent).locator(".prose table")
    assert table.bounding_box()["width"] < 300
    assert table.evaluate("table => table.scrollWidth <= table.clientWidth")
