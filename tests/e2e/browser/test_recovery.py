"""The page recovers from errors by itself: nothing lost, nothing duplicated."""

import os
import re
import secrets
import signal

import pytest
from playwright.sync_api import expect

from tests.support.http_session import HttpSession
from tests.support.process_fixtures import wait_for_workers
from tests.support.system import System

pytestmark = pytest.mark.e2e


def test_page_catches_up_by_itself_when_its_worker_is_killed(own_system, sit_at_different_workers):
    system = own_system()
    bob, charlie = sit_at_different_workers("bob", "charlie", at=system)
    alice = HttpSession.connect_to_worker(system, charlie.worker, token=system.get_token("alice", "admin"))
    sent = [alice.publish(f"Before {n}") for n in range(3)]
    expect(bob.card(sent[-1])).to_be_visible()
    killed = bob.worker
    os.kill(killed, signal.SIGKILL)
    sent += [alice.publish(f"While nobody serves Bob {n}") for n in range(5)]
    for desk in (bob, charlie):
        expect(desk.card(sent[-1])).to_be_visible()
    wait_for_workers(system, excluded=killed)
    sent.append(alice.publish("After"))
    for desk in (bob, charlie):
        expect(desk.card(sent[-1])).to_be_visible()
        desk.expect_live()
        desk.expect_cards(sent[::-1])
        desk.expect_unread(len(sent))
    assert bob.worker != killed
    assert len(charlie.stream_workers) == 1


def test_page_catches_up_after_the_whole_system_was_restarted(own_system, sit_down):
    system = own_system()
    bob = sit_down("bob", at=system).open_inbox()
    alice = HttpSession(system, token=system.get_token("alice", "admin"))
    sent = [alice.publish("Before")]
    expect(bob.card(sent[0])).to_be_visible()
    system.stop()
    expect(bob.page.locator("#connection")).not_to_have_attribute("data-state", "live")
    system.start()
    sent += [alice_again(system).publish(f"After the start {n}") for n in range(3)]
    bob.page.locator("#connection .chip-retry").evaluate("button => button.click()")  # a person need not wait
    expect(bob.card(sent[-1])).to_be_visible()
    bob.expect_cards(sent[::-1])
    bob.expect_unread(len(sent))


def alice_again(system: System) -> HttpSession:
    return HttpSession(system, token=system.get_token("alice", "admin"))


def test_offline_page_says_so_and_catches_up(sit_down, alice: HttpSession):
    """F25, offline and online again."""
    bob = sit_down("bob").open_inbox()
    bob.context.set_offline(True)
    expect(bob.page.locator("#connection")).not_to_have_attribute("data-state", "live")
    sent = [alice.publish(f"While offline {n} {secrets.token_hex(4)}") for n in range(3)]
    bob.context.set_offline(False)
    expect(bob.card(sent[-1])).to_be_visible()
    bob.expect_first_cards(sent[::-1])
    bob.expect_unread(3)


def test_two_tabs_use_one_stream_and_closing_the_leader_hands_over(sit_down, alice: HttpSession):
    desk = sit_down("bob").open_inbox()
    follower = desk.context.new_page()
    follower.goto("/inbox")
    expect(follower.locator("#connection")).to_have_attribute("data-state", "live")
    first = alice.publish(f"For both tabs {secrets.token_hex(4)}")
    for page in (desk.page, follower):
        expect(desk.card(first, page)).to_be_visible()
        desk.expect_unread(1, page)
    assert desk.stream_pages == [desk.page]
    desk.page.close()
    second = alice.publish(f"While the lead is handed over {secrets.token_hex(4)}")
    expect(desk.card(second, follower)).to_be_visible()
    desk.wait_until(lambda: desk.stream_pages[-1] == follower, description="the second tab to lead")
    desk.expect_first_cards([second, first], follower)
    desk.expect_unread(2, follower)


def test_signing_out_ends_all_pages_and_leaves_nothing_for_the_next_person(sit_down, alice: HttpSession):
    desk = sit_down("bob").open_inbox()
    sent = alice.publish(f"Moves the cursor {secrets.token_hex(4)}")
    expect(desk.card(sent)).to_be_visible()
    other_tab = desk.context.new_page()
    other_tab.goto("/inbox")
    expect(other_tab.locator("#connection")).to_have_attribute("data-state", "live")
    desk.page.locator("details.menu summary").click()
    desk.page.get_by_role("button", name="Sign out").click()
    expect(desk.page).to_have_url(re.compile(r"/login"))
    expect(other_tab).to_have_url(re.compile(r"/login"))
    assert desk.page.evaluate("localStorage.length + sessionStorage.length") == 0
