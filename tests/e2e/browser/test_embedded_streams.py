"""The embedded inbox when streams are blocked or fall silent."""

import os
import signal
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import PageClock
from tests.support.embedding_site import alice, embedding, has_loaded, port, site, visit  # noqa: F401 - fixtures
from tests.support.system import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.alike]


def is_state(page: Page, state: str) -> Callable[[], bool]:
    return lambda: page.locator("broadcast-inbox").get_attribute("data-state") == state


_STREAM = "**/api/sse/connect*"
_INSTEAD = {
    "held back": lambda held, route: held.append(route),
    "unavailable": lambda _, route: route.fulfill(status=502, content_type="text/html", body="<h1>Bad gateway</h1>"),
}


@pytest.mark.parametrize("words", _INSTEAD)
def test_page_without_streams_says_so_stays_current_and_goes_back_by_itself(alice, visit, site, words):  # noqa: F811
    page = visit("about:blank", state="")
    clock = PageClock(page)
    held = []
    page.context.route(_STREAM, lambda route: _INSTEAD[words](held, route))
    wait_for(lambda: has_loaded(page, site.url), description="the site")
    clock.advance_until(is_state(page, "poll"), description="the page to ask")
    expect(page.locator("broadcast-inbox .foot")).to_contain_text(f"Live updates are {words}; checking every 10 s")
    alice.publish(f"By asking, {words}")
    unread = page.get_by_role("button", name="Messages, 1 unread")
    clock.advance_until(unread.count, description="the message")
    assert is_state(page, "poll")()
    for route in held:
        route.abort("connectionreset")
    page.context.unroute(_STREAM)
    clock.advance_until(is_state(page, "live"), description="the stream")
    alice.publish(f"By the stream, {words}")
    expect(page.get_by_role("button", name="Messages, 2 unread")).to_be_visible()


def test_silent_line_is_noticed_by_the_missed_heartbeat(embedding, alice, visit, site):  # noqa: F811
    """The stream is open and says nothing any more, and nothing else is answered."""
    page = visit("about:blank", state="")
    clock = PageClock(page)
    wait_for(lambda: has_loaded(page, site.url), description="the site")
    expect(page.locator("broadcast-inbox")).to_have_attribute("data-state", "live")
    for worker in embedding.get_worker_pids():
        os.kill(worker, signal.SIGSTOP)
    try:
        page.clock.run_for(25_000)
        expect(page.locator("broadcast-inbox")).to_have_attribute("data-state", "wait")
        expect(page.locator("broadcast-inbox .foot")).to_contain_text("Reconnecting")
    finally:
        for worker in embedding.get_worker_pids():
            os.kill(worker, signal.SIGCONT)
    alice.publish("After the silence")
    clock.advance_until(is_state(page, "live"), description="the stream")
    expect(page.get_by_role("button", name="Messages, 1 unread")).to_be_visible()
