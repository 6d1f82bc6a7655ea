"""The embedded inbox in a browser: two origins on this machine, and the unchanged page of `docs/embed`."""

# ruff: noqa: F811 - fixtures of another module are arguments here

from datetime import timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from broadcast.domain import clock
from tests.e2e.browser.conftest import DESKTOP_VIEWPORT, PHONE_VIEWPORT
from tests.support.embedding_site import alice, embedding, locate_message, port, site, visit  # noqa: F401 - fixtures
from tests.support.http_session import HttpSession
from tests.support.system import System

pytestmark = [pytest.mark.e2e, pytest.mark.alike]


def sign_out_elsewhere(system: System) -> None:
    bob = HttpSession.sign_in(system, "bob")
    assert bob.post("/account/sessions/end-others").status == 303
    bob.close()


def unread_of_bob(system: System) -> int:
    return system.call("GET", "/api/user/messages", token=system.get_token("bob"))[1]["unread"]


def test_message_arrives_live_in_the_page_of_another_site_and_is_read_there(embedding, alice, visit):
    page = visit()
    bell = page.get_by_role("button", name="Messages", exact=True)
    id = alice.publish("Lifts", content="The **lifts** stand still. [More](https://example.org/)")
    expect(page.get_by_role("button", name="Messages, 1 unread")).to_be_visible()
    expect(page.locator("broadcast-inbox .status")).to_have_text("1 new message")
    page.get_by_role("button", name="Messages, 1 unread").click()
    expect(locate_message(page, id)).to_have_attribute("data-unread", "")
    expect(locate_message(page, id).locator("strong")).to_have_text("lifts")
    assert (
        locate_message(page, id).get_by_role("link", name="More").get_attribute("rel") == "noopener noreferrer nofollow"
    )
    locate_message(page, id).get_by_role("button", name="Lifts", exact=True).click()
    expect(locate_message(page, id)).not_to_have_attribute("data-unread", "")
    expect(bell).to_be_visible()
    assert unread_of_bob(embedding) == 0


def test_what_is_done_elsewhere_and_recalled_is_followed(embedding, alice, visit):
    page = visit()
    read, gone = alice.publish("Read elsewhere"), alice.publish("Recalled")
    page.get_by_role("button", name="Messages, 2 unread").click()
    embedding.call("POST", f"/api/sse/read?messageId={read}", token=embedding.get_token("bob"))
    expect(locate_message(page, read)).not_to_have_attribute("data-unread", "")
    alice.send("DELETE", f"/api/admin/broadcasts/{gone}", {"reason": "A mistake"})
    expect(locate_message(page, gone)).to_have_count(0)
    expect(page.get_by_role("button", name="Messages", exact=True)).to_be_visible()


def test_urgent_message_is_a_banner_until_it_is_acknowledged(embedding, alice, visit):
    page = visit()
    id = alice.publish("Fire drill", priority="URGENT", requiresAck=True)
    banner = page.get_by_role("alert")
    expect(banner).to_contain_text("Fire drill")
    expect(page.locator("body")).to_be_focused()
    banner.get_by_role("button", name="Fire drill", exact=True).click()
    expect(banner).to_have_count(0)
    locate_message(page, id).get_by_role("button", name="I have read and understood").click()
    expect(locate_message(page, id).get_by_role("button", name="I have read and understood")).to_have_count(0)
    told = alice.get(f"/api/admin/broadcasts/{id}/stats").json
    assert told["acknowledged"] == 1


def test_banner_that_was_put_away_stays_away_and_the_card_stays(alice, visit):
    page = visit()
    id = alice.publish("Storm", priority="HIGH")
    page.get_by_role("button", name="Dismiss: Storm").click()
    page.reload()
    page.get_by_role("button", name="Messages, 1 unread").click()
    expect(locate_message(page, id)).to_have_attribute("data-unread", "")
    expect(page.locator("broadcast-inbox .banner")).to_have_count(0)


def test_quiet_hours_hold_the_banner_and_never_the_message(embedding, alice, visit):
    until = clock.to_rfc3339(clock.now() + timedelta(hours=1))
    embedding.call("PUT", "/api/user/preferences", token=embedding.get_token("bob"), body={"doNotDisturbUntil": until})
    page = visit()
    alice.publish("Storm that waits", priority="HIGH")
    expect(page.get_by_role("button", name="Messages, 1 unread")).to_be_visible()
    expect(page.locator("broadcast-inbox .banner")).to_have_count(0)
    embedding.call("PUT", "/api/user/preferences", token=embedding.get_token("bob"), body={})


def test_keys_open_walk_and_close_and_the_focus_is_never_lost(alice, visit):
    page = visit()
    first, second = alice.publish("First of two"), alice.publish("Second of two")
    bell = page.get_by_role("button", name="Messages, 2 unread")
    bell.focus()
    page.keyboard.press("Enter")
    expect(page.locator("broadcast-inbox .panel")).to_be_focused()
    for key, id in [("ArrowDown", second), ("ArrowDown", first), ("ArrowUp", second)]:
        page.keyboard.press(key)
        expect(locate_message(page, id).locator(".title")).to_be_focused()
    page.keyboard.press("Enter")
    expect(locate_message(page, second).locator(".title")).to_be_focused()
    alice.publish("One more")
    expect(page.locator("broadcast-inbox article")).to_have_count(3)
    expect(locate_message(page, second).locator(".title")).to_be_focused()
    mark_read = locate_message(page, first).get_by_role("button", name="Mark read")
    mark_read.focus()
    expect(mark_read).to_be_focused()
    page.keyboard.press("Enter")
    expect(locate_message(page, first).locator(".title")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("broadcast-inbox .bell")).to_be_focused()
    expect(page.locator("broadcast-inbox .panel")).to_be_hidden()


def test_all_are_marked_read(embedding, alice, visit):
    page = visit()
    alice.publish("One"), alice.publish("Two")
    page.get_by_role("button", name="Messages, 2 unread").click()
    page.get_by_role("button", name="Mark all read").click()
    expect(page.get_by_role("button", name="Messages", exact=True)).to_be_focused()
    assert unread_of_bob(embedding) == 0


def test_origin_that_is_not_allowed_gets_nothing_not_even_with_a_stolen_token(embedding, visit, port):
    """The same page under another name of this machine: no token is made for it, and with another's it is refused."""
    stranger = visit(f"http://127.0.0.1:{port}/", state="")
    asked = (
        """([url, token]) => fetch(url, {headers: {Authorization: 'Bearer ' + token}}).then((r) => r.status, String)"""
    )
    token = visit().evaluate(
        "fetch('/broadcast-token', {method: 'POST'}).then((r) => r.json()).then((told) => told.token)"
    )
    for path in ("/api/user/messages", "/api/sse/connect"):
        assert "TypeError" in stranger.evaluate(asked, [embedding.url + path, token])
    expect(stranger.locator("broadcast-inbox .badge")).to_be_hidden()
    stranger.locator("broadcast-inbox .bell").click()
    expect(stranger.locator("broadcast-inbox .empty")).to_contain_text("messages could not be loaded")
    headers = {"Origin": "http://elsewhere.example"}
    assert embedding.call("GET", "/api/user/messages", token=token, headers=headers)[0] == 403


def test_token_that_is_over_is_renewed_without_a_word(embedding, alice, visit):
    page = visit()
    over = page.evaluate("fetch('/broadcast-token', {method: 'POST'}).then((answer) => answer.json())")
    sign_out_elsewhere(embedding)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "broadcast-token" in request.url else None)
    page.route("**/broadcast-token", lambda route: route.fulfill(json=over) if len(asked) == 1 else route.continue_())
    page.reload()
    expect(page.locator("broadcast-inbox")).to_have_attribute("data-state", "live")
    assert len(asked) == 2
    alice.publish("After all")
    expect(page.get_by_role("button", name="Messages, 1 unread")).to_be_visible()


def test_cut_stream_goes_on_where_it_was(embedding, alice, visit):
    page = visit()
    page.context.set_offline(True)
    page.evaluate("dispatchEvent(new Event('offline'))")
    ids = [alice.publish(f"Meanwhile {n}") for n in range(3)]
    page.context.set_offline(False)
    page.get_by_role("button", name="Messages, 3 unread").click()
    for id in ids:
        expect(locate_message(page, id)).to_be_visible()
    shown = page.locator("broadcast-inbox article").evaluate_all("all => all.map((one) => Number(one.dataset.id))")
    assert shown[:3] == ids[::-1]


def test_signed_out_everywhere_is_said_in_the_page(embedding, visit):
    page = visit()
    sign_out_elsewhere(embedding)
    expect(page.locator("broadcast-inbox .foot")).to_contain_text("Signed out")


@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP_VIEWPORT, PHONE_VIEWPORT], ids=["wide", "narrow"])
def test_panel_fits_and_axe_finds_nothing(alice, visit, look, size):
    page = visit(viewport=size, color_scheme=look)
    alice.publish(
        f"Storm warning {look} {size['width']}",
        priority="HIGH",
        category="Weather",
        content="Take your bikes **inside**.\n\n- garage\n- cellar",
    )
    alice.publish(
        f"New rules {look} {size['width']}",
        requiresAck=True,
        actions=[{"label": "Read them", "url": "https://example.org/"}],
    )
    page.get_by_role("button", name="Messages, 2 unread").click()
    expect(page.locator("broadcast-inbox article")).to_have_count(2)
    box = page.locator("broadcast-inbox .panel").bounding_box()
    assert 0 <= box["x"] <= size["width"] - box["width"]
    assert box["y"] + box["height"] <= size["height"]
    found = Axe().run(page, context={"include": [["broadcast-inbox"]]}).response["violations"]
    assert found == [], [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
