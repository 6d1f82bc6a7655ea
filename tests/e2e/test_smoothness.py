"""How smoothly an open inbox takes what arrives: nothing under the eyes moves, and no script holds the page up for long."""

import secrets
import time

import pytest
from playwright.sync_api import expect

from tests import figures
from tests.e2e.conftest import Desk
from tests.visitor import Visitor

pytestmark = [pytest.mark.e2e, pytest.mark.alike, pytest.mark.timeout(300)]
_ARRIVALS, _SECONDS = 100, 10
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
    window.observed = async (name) => { await frame(); await frame(); await frame(); shift(); task(); return window[name]; };
}"""


def observed(desk: Desk, name: str) -> list:
    """The `shifts` (value, what moved) or `tasks` (milliseconds) since _OBSERVE, once all is drawn."""
    return desk.page.evaluate("(name) => window.observed(name)", name)


def test_arrival_shifts_nothing_at_the_top_nor_while_reading(sit_down, alice: Visitor):
    desk = sit_down("bob", reduced_motion="no-preference").open_inbox()
    sent = [alice.publish(f"There before {secrets.token_hex(4)}") for _ in range(3)][-1]
    expect(desk.card(sent)).to_be_visible()
    seen = [_shifts_of_one_at_the_top(desk, alice) for _ in range(4)]
    # without its gliding every arrival shifts; a browser that was kept from drawing may tell of one all the same
    assert [] in seen, seen
    desk.page.evaluate(_OBSERVE)
    desk.card(sent).focus()
    alice.publish(f"Behind the pill {secrets.token_hex(4)}")
    expect(desk.page.locator("#pill")).to_be_visible()
    assert observed(desk, "shifts") == []


def _shifts_of_one_at_the_top(desk: Desk, alice: Visitor) -> list:
    desk.page.evaluate(_OBSERVE)
    sent = alice.publish(f"At the top {secrets.token_hex(4)}")
    expect(desk.card(sent)).to_be_visible()
    return observed(desk, "shifts")


def test_hundred_arrivals_in_ten_seconds_are_measured(sit_down, alice: Visitor):
    """What they cost depends on the machine and who else uses it, so it is noted and not judged."""
    desk = sit_down("bob", reduced_motion="no-preference").open_inbox()
    desk.page.evaluate(_OBSERVE)
    began = time.monotonic()
    for n in range(_ARRIVALS):
        sent = alice.publish(f"Arrival {n} {secrets.token_hex(4)}")
        desk.page.wait_for_timeout(max(0, 1000 * (began + (n + 1) * _SECONDS / _ARRIVALS - time.monotonic())))
    expect(desk.card(sent)).to_be_visible(timeout=60_000)
    expect(desk.page.locator('.views [data-count="unread-view"]')).to_have_text(str(_ARRIVALS))
    took = time.monotonic() - began
    tasks = observed(desk, "tasks")
    figures.note(
        f"{_ARRIVALS} arrivals in {took:.0f} s: tasks over 50 ms ({len(tasks)})", [ms / 1000 for ms in tasks] or [0.0]
    )
    figures.noted.append(
        f"layout shift of {_ARRIVALS} arrivals: {sum(value for value, *_ in observed(desk, 'shifts')):.3f}"
    )
