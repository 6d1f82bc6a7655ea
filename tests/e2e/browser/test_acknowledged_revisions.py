"""A live message is edited after users acknowledged it, in real browsers: what each of them sees and sends."""

import secrets

import pytest
from playwright.sync_api import expect

from tests.support.http_session import HttpSession

pytestmark = [pytest.mark.e2e, pytest.mark.alike]

ONLY_BOB = {"targetType": "SELECTED", "targetIds": ["bob"], "requiresAck": True}


def given(alice: HttpSession, sent: int) -> dict:
    [bob] = alice.get(f"/api/admin/broadcasts/{sent}/deliveries").json["items"]
    return bob


def test_open_page_asks_again_and_then_sends_the_new_revision(sit_down, alice: HttpSession):
    sent = alice.publish(f"Rules {secrets.token_hex(3)}", content="First words", **ONLY_BOB)
    bob, author = sit_down("bob").open_inbox(), sit_down("alice").page
    button = bob.card(sent).get_by_role("button", name="I have read and understood")
    button.click()
    expect(bob.card(sent)).to_have_attribute("data-acked", "")
    author.goto(f"/console/broadcasts/{sent}/edit")
    author.get_by_label("Text", exact=True).fill("Second words")
    author.get_by_role("button", name="Save for 1 person").click()
    expect(author.locator("#errors")).to_contain_text("Choose whether existing acknowledgements still count.")
    author.get_by_label("Ask everyone to acknowledge it again").check()
    author.get_by_role("button", name="Save for 1 person").click()
    expect(bob.card(sent)).to_contain_text("Second words")
    expect(bob.card(sent)).to_contain_text("You acknowledged an earlier version on")
    expect(bob.card(sent)).to_have_attribute("data-unread", "")
    assert given(alice, sent)["acknowledgedAt"] is None
    button.click()
    expect(bob.card(sent)).to_contain_text("You acknowledged this")
    bob.wait_until(
        lambda: given(alice, sent)["acknowledgedRevision"] == 2, description="the acknowledgement of the second text"
    )
    assert len(given(alice, sent)["earlierAcknowledgements"]) == 1


def test_open_page_keeps_an_acknowledgement_after_a_correction(sit_down, alice: HttpSession):
    sent = alice.publish(f"Rules {secrets.token_hex(3)}", content="First words", **ONLY_BOB)
    bob = sit_down("bob").open_inbox()
    bob.card(sent).get_by_role("button", name="I have read and understood").click()
    expect(bob.card(sent)).to_have_attribute("data-acked", "")
    alice.send("PATCH", f"/api/admin/broadcasts/{sent}", {"content": "Second words"}, If_Match="*")
    expect(bob.card(sent)).to_contain_text("Second words")
    expect(bob.card(sent).get_by_role("button", name="I have read and understood")).to_be_hidden()
    bob.page.reload()
    expect(bob.card(sent)).to_contain_text("You acknowledged an earlier version")
    assert given(alice, sent)["acknowledgedRevision"] == 1


def test_page_without_javascript_is_led_to_the_words_as_they_are_now(sit_down, alice: HttpSession):
    sent = alice.publish(f"Rules {secrets.token_hex(3)}", content="First words", **ONLY_BOB)
    page = sit_down("bob", java_script_enabled=False).page
    page.goto(f"/inbox/{sent}")
    alice.send(
        "PATCH",
        f"/api/admin/broadcasts/{sent}",
        {"content": "Second words", "acknowledgeAgain": True},
        If_Match="*",
    )
    page.get_by_role("button", name="I have read and understood").click()
    expect(page.get_by_role("alert").first).to_contain_text("Not acknowledged.")
    expect(page.locator(".card")).to_contain_text("Second words")
    page.get_by_role("button", name="I have read and understood").click()
    page.goto(f"/inbox/{sent}")
    expect(page.locator(".card")).to_contain_text("You acknowledged this")
    assert given(alice, sent)["acknowledgedRevision"] == 2
