"""Smoothness of an open inbox while messages arrive: visible content does not shift, and no script blocks the page for
long.

State is read from the page itself. Playwright's visibility check forces a layout, and during an animation that layout
itself moves the cards.
"""

import secrets
import time

import pytest
from playwright.sync_api import expect

from tests.e2e.browser.conftest import UserBrowser, iterate_at_rate
from tests.support import measurements as figures
from tests.support.http_session import HttpSession

pytestmark = [pytest.mark.e2e, pytest.mark.alike]
_ARRIVALS, _SECONDS = 100, 10
_MOST_SHIFT = 3.5  # of all of them; 7 when nothing glides, next to nothing when all does, 1 when seldom allowed to draw
_OBSERVE = """() => {
    window.shifts = []; window.tasks = [];
    const watch = (type, note) => {
        const observer = new PerformanceObserver((list) => list.getEntries().forEach(note));
        observer.observe({type});
        return () => observer.takeRecords().forEach(note);
    };
    const shift = watch('layout-shift', (one) => {
        if (!one.hadRecentInput) window.shifts.push([one.value, ...one.sources.map(({node}) => node?.id || node?.className)]);
    });
    const task = watch('longtask', (one) => window.tasks.push(one.duration));
    const frame = () => new Promise((drawn) => requestAnimationFrame(drawn));
    window.observed = async (name) => {
        await frame(); await frame(); await frame(); shift(); task();
        return window[name].splice(0);
    };
}"""


@pytest.fixture
def bob(sit_down) -> UserBrowser:
    """His inbox, for who does not mind motion, and observed."""
    desk = sit_down("bob", reduced_motion="no-preference").open_inbox()
    desk.page.evaluate(_OBSERVE)
    return desk


def wait_for_card(desk: UserBrowser, broadcast_id: int) -> None:
    desk.page.wait_for_function("(id) => document.getElementById(id)", arg=f"card-{broadcast_id}")


def observed(desk: UserBrowser, name: str) -> list:
    """The `shifts` (value, what moved) or `tasks` (milliseconds) since the last look, once all is drawn."""
    return desk.page.evaluate("(name) => window.observed(name)", name)


def test_arrival_shifts_nothing_at_the_top_nor_while_reading(bob: UserBrowser, alice: HttpSession):
    for n in range(3):
        sent = alice.publish(f"There before {n} {secrets.token_hex(4)}")
    wait_for_card(bob, sent)
    seen = [_shifts_of_one_at_the_top(bob, alice) for _ in range(4)]
    # without its gliding every arrival shifts; a browser that was kept from drawing may tell of one all the same
    assert [] in seen, seen
    bob.card(sent).focus()
    observed(bob, "shifts")
    alice.publish(f"Behind the pill {secrets.token_hex(4)}")
    bob.page.wait_for_function("() => !document.getElementById('pill').hidden")
    assert observed(bob, "shifts") == []


def _shifts_of_one_at_the_top(desk: UserBrowser, alice: HttpSession) -> list:
    observed(desk, "shifts")
    wait_for_card(desk, alice.publish(f"At the top {secrets.token_hex(4)}"))
    return observed(desk, "shifts")


def test_hundred_arrivals_in_ten_seconds_shift_next_to_nothing_and_are_measured(bob: UserBrowser, alice: HttpSession):
    """What they cost depends on the machine and who else uses it, so the tasks are noted and not judged."""
    began = time.monotonic()
    for n in iterate_at_rate(bob.page, _ARRIVALS, per_second=_ARRIVALS / _SECONDS):
        sent = alice.publish(f"Arrival {n} {secrets.token_hex(4)}")
    wait_for_card(bob, sent)
    took = time.monotonic() - began
    tasks, shift = observed(bob, "tasks"), sum(value for value, *_ in observed(bob, "shifts"))
    expect(bob.page.locator('.views [data-count="unread-view"]')).to_have_text(str(_ARRIVALS))
    figures.record_durations(
        f"{_ARRIVALS} arrivals in {took:.0f} s: tasks over 50 ms ({len(tasks)})", [ms / 1000 for ms in tasks] or [0.0]
    )
    figures.measurements.append(f"layout shift of {_ARRIVALS} arrivals: {shift:.3f}")
    assert shift < _MOST_SHIFT
