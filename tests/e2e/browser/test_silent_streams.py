"""Silent streams, and URLs without one: the page says so, polls, and returns to streaming.

The test advances the pages' clock, so no wait takes as long as in real use.
"""

import re
import secrets
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.browser.conftest import PHONE_VIEWPORT, PageClock, UserBrowser
from tests.support.http_session import HttpSession
from tests.support.system import System
from tests.support.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.e2e, pytest.mark.alike]

_PATIENCE_MS = 60_000
_NOTICED_MS = 25_000  # a missed heartbeat of 15 s ± 20 %, and some grace
_LOOKED_MS = 13_000  # the server is asked every 10 s ± 20 %
_STREAM = re.compile(r"/inbox/stream")
_HELD, _UNAVAILABLE = (
    "Live updates are held back; checking every 10 s",
    "Live updates are unavailable; checking every 10 s",
)
_REFUSALS = {
    "502": {"status": 502, "content_type": "text/html", "body": "<h1>Bad gateway</h1>"},
    "page": {"content_type": "text/html", "body": "<h1>Sign in to the network</h1>"},
    "closes at once": {"content_type": "text/event-stream", "body": ""},
}


class Gate:
    """Stands before the streams of one desk, whose page gets a clock. `waiting` are the requests that it never answered."""

    def __init__(self, desk: UserBrowser):
        self.clock = PageClock(desk.page)
        self._desk, self.waiting, self.counts = desk, [], 0
        desk.context.on("request", self._on_request)

    def refuse(self, **answer) -> None:
        self._desk.context.route(_STREAM, lambda route: route.fulfill(**answer))

    def hold(self) -> None:
        self._desk.context.route(_STREAM, lambda route: self.waiting.append(route))

    def open(self) -> None:
        self._desk.context.unroute(_STREAM)

    def end_waiting(self) -> None:
        for route in self.waiting:
            route.abort("connectionreset")
        self.waiting.clear()

    def _on_request(self, request) -> None:
        self.counts += "/inbox/count" in request.url


@pytest.fixture
def gated(sit_down: Callable[..., UserBrowser]) -> Iterator[tuple[UserBrowser, Gate]]:
    """Bob's desk; what the gate still holds is let go at the end."""
    desk = sit_down("bob")
    gate = Gate(desk)
    yield desk, gate
    gate.end_waiting()


@pytest.fixture
def link(system: System) -> Iterator[TcpProxy]:
    link = TcpProxy("127.0.0.1", system.port)
    yield link
    link.close()


def chip(page: Page) -> Locator:
    return page.locator("#connection .chip-text")


def state(page: Page, expected: str) -> None:
    expect(page.locator("#connection")).to_have_attribute("data-state", expected, timeout=_PATIENCE_MS)


def is_state(page: Page, expected: str) -> Callable[[], bool]:
    return lambda: page.locator("#connection").get_attribute("data-state") == expected


def test_silent_line_is_noticed_by_the_missed_heartbeat_and_the_page_is_current_once_it_is_back(
    system: System, link: TcpProxy, sit_down, alice: HttpSession
):
    at = system.with_url(f"http://127.0.0.1:{link.port}")
    bob = sit_down("bob", at=at, signed_in_as=HttpSession.sign_in(system, "bob"))
    clock = PageClock(bob.page)
    bob.open_inbox()
    link.pause()
    bob.page.clock.run_for(_NOTICED_MS)
    state(bob.page, "wait")
    expect(chip(bob.page)).to_have_text(re.compile("Reconnecting"))
    sent = alice.publish(f"While the line is silent {secrets.token_hex(4)}")
    bob.page.clock.run_for(_NOTICED_MS)
    expect(chip(bob.page)).to_have_text(re.compile("Reconnecting"), timeout=_PATIENCE_MS)  # and no proxy is blamed
    link.resume()
    clock.advance_until(is_state(bob.page, "live"), description="the stream")
    expect(bob.card(sent)).to_be_visible(timeout=_PATIENCE_MS)
    expect(bob.card(sent)).to_have_count(1)


@pytest.mark.parametrize("how", _REFUSALS)
def test_page_without_streams_says_so_stays_current_and_goes_back_by_itself(gated, alice: HttpSession, how: str):
    bob, gate = gated
    gate.refuse(**_REFUSALS[how])
    bob.page.goto("/inbox")
    gate.clock.advance_until(is_state(bob.page, "poll"), description="the page to ask")
    expect(chip(bob.page)).to_have_text(_UNAVAILABLE)
    sent = alice.publish(f"By asking {secrets.token_hex(4)}")
    gate.clock.advance_until(bob.card(sent).count, description="the message")
    state(bob.page, "poll")
    gate.open()
    gate.clock.advance_until(is_state(bob.page, "live"), description="the stream")
    live = alice.publish(f"By the stream {secrets.token_hex(4)}")
    expect(bob.card(live)).to_be_visible(timeout=_PATIENCE_MS)


def test_end_of_a_held_stream_leaves_no_gap_in_the_asking(gated, alice: HttpSession):
    bob, gate = gated
    gate.hold()
    bob.page.goto("/inbox")
    gate.clock.advance_until(is_state(bob.page, "poll"), description="the page to ask")
    expect(chip(bob.page)).to_have_text(_HELD)
    for _ in range(3):
        bob.wait_until(lambda: gate.waiting, seconds=60, description="a stream that is held back")
        counted = gate.counts
        gate.end_waiting()
        bob.page.clock.run_for(_LOOKED_MS)
        bob.wait_until(lambda counted=counted: gate.counts > counted, seconds=60, description="a count")
        expect(chip(bob.page)).to_have_text(_HELD)
    sent = alice.publish(f"By asking {secrets.token_hex(4)}")
    gate.clock.advance_until(bob.card(sent).count, description="the message")


def test_live_stream_that_ends_at_a_proxy_without_streams_leaves_no_gap(gated, system: System, alice: HttpSession):
    bob, gate = gated
    bob.open_inbox()
    gate.refuse(**_REFUSALS["502"])
    bob.context.set_offline(True)
    state(bob.page, "wait")
    bob.context.set_offline(False)
    sent = alice.publish(f"Between {secrets.token_hex(4)}")
    counted = gate.counts
    bob.page.clock.run_for(_LOOKED_MS)
    bob.wait_until(lambda: gate.counts > counted, seconds=60, description="a count")
    expect(bob.card(sent)).to_be_visible(timeout=_PATIENCE_MS)
    expect(chip(bob.page)).to_have_text(_UNAVAILABLE, timeout=_PATIENCE_MS)


def test_server_that_does_not_answer_at_all_is_no_proxy_that_lacks_streams(gated):
    bob, gate = gated
    gate.refuse(**_REFUSALS["502"])
    bob.page.route("**/inbox/count", lambda route: route.fulfill(status=502))
    bob.page.goto("/inbox")
    gate.clock.advance_until(lambda: gate.counts >= 2, description="two questions")
    state(bob.page, "wait")


def test_tabs_that_follow_say_the_same_and_are_current(gated, alice: HttpSession):
    bob, gate = gated
    gate.refuse(**_REFUSALS["502"])
    bob.page.goto("/inbox")
    other = bob.context.new_page()
    other_clock = PageClock(other)
    other.goto("/inbox")
    gate.clock.advance_until(is_state(bob.page, "poll"), description="the page to ask")
    expect(chip(other)).to_have_text(_UNAVAILABLE, timeout=_PATIENCE_MS)
    sent = alice.publish(f"For two tabs {secrets.token_hex(4)}")
    for clock, page in ((gate.clock, bob.page), (other_clock, other)):
        clock.advance_until(bob.card(sent, page).count, description="the message")


def test_silence_is_measured_by_the_heartbeat_that_the_server_told(gated):
    bob, _ = gated
    bob.open_inbox()
    silent = bob.page.evaluate("""() => [1, 15, 60].map((seconds) => {
        const told = new StreamHealth({ poll: async () => null, catchUp() {}, disconnect() {}, showState() {} });
        told.startAttempt();
        told.recordEvent("CONNECTED", seconds);
        return told.silenceMs;
    })""")
    assert silent == [6200, 23_000, 77_000]


def test_stream_of_which_only_the_beginning_comes_through_is_held_back(gated):
    """Each opens at once, and no heartbeat follows."""
    bob, _ = gated
    bob.open_inbox()
    states = bob.page.evaluate("""() => {
        window.shown = [];
        const health = new StreamHealth({
            poll: async () => ({}), catchUp() {}, showState: (state, isHeld) => window.shown.push([state, isHeld]),
            disconnect() { health.recordEnd(); health.startAttempt(); health.recordEvent("CONNECTED", 15); },
        });
        window.health = health;
        health.startAttempt();
        health.recordEvent("CONNECTED", 15);
        return window.shown;
    }""")
    assert states == [["live", False]]
    bob.page.clock.run_for(120_000)
    bob.wait_until(lambda: bob.page.evaluate("window.shown.at(-1)") == ["poll", True], description="the page to ask")
    bob.page.evaluate("window.health.recordEvent('HEARTBEAT')")
    assert bob.page.evaluate("window.health.state") == "live"


@pytest.mark.parametrize("look", ["light", "dark"])
def test_sentence_and_button_fit_on_a_phone(sit_down, look: str):
    bob = sit_down("bob", viewport=PHONE_VIEWPORT, color_scheme=look)
    gate = Gate(bob)
    gate.refuse(**_REFUSALS["502"])
    bob.page.goto("/inbox")
    gate.clock.advance_until(is_state(bob.page, "poll"), description="the page to ask")
    whole = bob.page.locator("#connection").bounding_box()
    for part in (chip(bob.page), bob.page.get_by_role("button", name="Retry")):
        box = part.bounding_box()
        assert box["width"] > 0
        assert whole["x"] <= box["x"] <= whole["x"] + whole["width"] - box["width"]
    assert 0 <= whole["x"] <= PHONE_VIEWPORT["width"] - whole["width"]
