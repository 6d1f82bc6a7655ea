"""A page whose assets are on a node of another version: it waits for them and starts, and typed text is kept."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

pytestmark = [pytest.mark.e2e, pytest.mark.alike]


def answer_of_another_version(desk, pattern: str, times: int) -> list[str]:
    """The first `times` requests for such a file meet a node that does not have it. Returns who was refused, as it grows."""
    refused: list[str] = []

    def handle(route: Route) -> None:
        if len(refused) >= times:
            route.fallback()
            return
        refused.append(route.request.url)
        route.fulfill(status=404, headers={"Cache-Control": "no-store"})

    desk.context.route(pattern, handle)
    return refused


def until(page: Page, condition: Callable[[], bool]) -> None:
    """Let events in until it holds. Nothing is asked of the page itself, which may be leaving just now."""
    for _ in range(600):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it never happened")


@pytest.mark.parametrize("file", ["core/page.js", "inbox/live.js", "vendor/htmx-4.0.1.min.js", "core/app.css"])
def test_page_comes_up_once_a_node_has_its_file(system, sit_down, file):
    desk, loads = sit_down("bob"), []
    desk.page.on("load", lambda page: loads.append(page))
    refused = answer_of_another_version(desk, f"**/static/{file}?v=*", times=2)
    desk.page.goto("/inbox")
    until(desk.page, lambda: len(loads) == 2)
    desk.expect_live()
    assert len(refused) == 2, "the page asked again, and waited"
    assert desk.page.evaluate("document.styleSheets.length") > 0
    desk.script_errors.clear()  # of the page that had only some of its scripts


def test_page_that_never_gets_its_file_stops_loading_itself(system, sit_down):
    desk = sit_down("bob")
    desk.page.add_init_script(
        "for (const real of [window.setTimeout]) window.setTimeout = (what, ms) => real(what, ms / 50)"
    )
    refused = answer_of_another_version(desk, "**/static/inbox/live.js?v=*", times=10**6)
    desk.page.goto("/inbox")
    until(desk.page, lambda: len(refused) == (1 + 5) * (1 + 3))  # it was loaded six times, and asked four times in each
    desk.page.wait_for_timeout(500)  # in which nothing is to happen
    assert len(refused) == 24
    expect(desk.page.locator("h1").first).to_be_visible()
    desk.script_errors.clear()


def test_text_that_is_typed_meanwhile_is_not_lost(system, sit_down):
    desk = sit_down("alice")
    refused = answer_of_another_version(desk, "**/static/console/compose.js?v=*", times=10**6)
    desk.page.goto("/console/broadcasts/new")
    desk.page.locator("[name=title]").fill("Half a sentence")
    until(desk.page, lambda: len(refused) == 4)
    desk.page.wait_for_timeout(200)  # in which nothing is to happen
    expect(desk.page.locator("[name=title]")).to_have_value("Half a sentence")
