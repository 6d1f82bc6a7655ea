"""Time from sending to a visible card. Measures; asserts only that the card arrives."""

import secrets
import time

import pytest
from playwright.sync_api import expect

from tests.e2e.browser.conftest import UserBrowser, fill_compose_form, iterate_at_rate, send_broadcast
from tests.support import measurements
from tests.support.http_session import HttpSession
from tests.support.system import System

pytestmark = [pytest.mark.e2e, pytest.mark.alike]
_A_SECOND = 2  # slower than cards are held back to come together: that wait is of a burst, and measured elsewhere

_WATCH = """() => {
    window.shownAt = {};
    const note = node => {
        for (const card of node.matches?.('article') ? [node] : node.querySelectorAll?.('article') ?? []) {
            requestAnimationFrame(() => { window.shownAt[card.dataset.id] ??= Date.now(); });
        }
    };
    new MutationObserver(seen => seen.forEach(one => one.addedNodes.forEach(note)))
        .observe(document.body, {childList: true, subtree: true});
}"""
_PRESSED = """() => document.querySelector('#compose').addEventListener('submit',
    () => localStorage.setItem('pressedAt', Date.now()))"""


def test_published_by_a_program_a_card_is_visible_in_browsers_at_both_workers(
    sit_at_different_workers, system: System, alice: HttpSession
):
    desks = sit_at_different_workers("bob", "charlie", at=system)
    for desk in desks:
        desk.page.evaluate(_WATCH)
    took = []
    for n in iterate_at_rate(desks[0].page, 10, per_second=_A_SECOND):
        began = time.time()
        sent = alice.publish(f"Measured {n} {secrets.token_hex(4)}")
        took += [_shown_at(desk, sent) - began for desk in desks]
    measurements.record_durations("publish (request sent) → card visible, two browsers at two workers", took)


def test_sent_by_a_click_in_the_console_a_card_is_visible(sit_down, alice: HttpSession):
    bob, console = sit_down("bob").open_inbox(), sit_down("alice")
    bob.page.evaluate(_WATCH)
    took = []
    for n in range(10):
        fill_compose_form(console.page, f"Clicked {n} {secrets.token_hex(4)}", "Measured from the press.")
        console.page.evaluate(_PRESSED)
        sent = send_broadcast(console.page)
        pressed_at = float(console.page.evaluate("localStorage.getItem('pressedAt')")) / 1000
        took.append(_shown_at(bob, sent) - pressed_at)
    measurements.record_durations("click on Send → card visible in another browser", took)


def _shown_at(desk: UserBrowser, broadcast_id: int) -> float:
    """Seconds since the epoch by the machine's clock, which pages and this process share: a page's `performance` keeps going
    when that clock is put right. Fails if it is not seen.
    """
    shown = desk.page.wait_for_function("(id) => window.shownAt[id]", arg=broadcast_id)
    expect(desk.card(broadcast_id)).to_be_visible()
    return shown.json_value() / 1000
