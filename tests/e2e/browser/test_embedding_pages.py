"""Several pages with an embedded inbox in one browser, actions elsewhere, and conflicting markup of the host page."""

# ruff: noqa: F811 - fixtures of another module are arguments here

import json

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import DESKTOP_VIEWPORT, PHONE_VIEWPORT, assert_badge_fits_text
from tests.support.embedding_site import alice, embedding, locate_message, port, site, visit  # noqa: F401 - fixtures
from tests.support.http_session import HttpSession
from tests.support.system import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.alike]


def open_more(page: Page, count: int) -> list[Page]:
    """That many pages of the site in the browser of `page`, live like it."""
    pages = [page.context.new_page() for _ in range(count)]
    for one in pages:
        one.goto(page.url)
    for one in pages:
        expect(one.locator("broadcast-inbox")).to_have_attribute("data-state", "live")
    return pages


def watch_streams(page: Page) -> list[str]:
    """Requests for a stream in this browser."""
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url) if "/api/sse/connect" in request.url else None)
    return asked


@pytest.mark.parametrize("locks", ["locks", "plain http"])
def test_pages_of_a_site_share_one_stream_and_what_is_done_on_one_is_done_on_all(alice, visit, site, locks):
    """Seven: HTTP/1.1 has six connections to a site."""
    page = visit("about:blank", state="")
    if locks != "locks":  # a page that was not sent over TLS has none; this machine's own name counts as if it were
        page.context.add_init_script("Object.defineProperty(navigator, 'locks', { value: undefined })")
    asked = watch_streams(page)
    page.goto(site.url)
    expect(page.locator("broadcast-inbox")).to_have_attribute("data-state", "live")
    pages = [page, *open_more(page, 6)]
    assert len(asked) == 1
    id = alice.publish(f"For seven {locks}", priority="HIGH")
    for one in pages:
        expect(one.locator("broadcast-inbox .banner")).to_be_visible()
        expect(one.get_by_role("button", name="Messages, 1 unread")).to_be_visible()
    pages[3].get_by_role("button", name=f"Dismiss: For seven {locks}").click()
    expect(pages[3].locator("broadcast-inbox .bell")).to_be_focused()
    for one in pages:
        expect(one.locator("broadcast-inbox .banner")).to_have_count(0)
        expect(one.get_by_role("button", name="Messages, 1 unread")).to_be_visible()
    pages[5].get_by_role("button", name="Messages, 1 unread").click()
    locate_message(pages[5], id).get_by_role("button", name="Mark read").click()
    for one in pages:
        expect(one.get_by_role("button", name="Messages", exact=True)).to_be_visible()
    assert len(asked) == 1
    pages[0].close()  # it led
    late = alice.publish(f"After the leader {locks}")
    for one in pages[1:]:
        expect(one.get_by_role("button", name="Messages, 1 unread")).to_be_visible()
    assert len(asked) == 2
    assert late > id


def test_page_that_nobody_sees_lets_the_stream_go_and_is_current_when_it_is_seen_again(alice, visit, site):
    page = visit("about:blank", state="")
    page.context.add_init_script(
        """window.look = (state) => {
          Object.defineProperty(Document.prototype, "visibilityState", { get: () => state, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        };"""
    )
    page.clock.install()
    asked, ended = watch_streams(page), []
    page.on("requestfailed", lambda request: ended.append(request.url) if "/api/sse/connect" in request.url else None)
    page.goto(site.url)
    expect(page.locator("broadcast-inbox")).to_have_attribute("data-state", "live")
    page.evaluate("look('hidden')")
    page.clock.run_for(31_000)
    wait_for(lambda: page.evaluate("null") or ended, description="the stream to end")
    ids = [alice.publish(f"Unseen {n}") for n in range(2)]
    page.evaluate("look('visible')")
    page.get_by_role("button", name="Messages, 2 unread").click()
    for id in ids:
        expect(locate_message(page, id)).to_be_visible()
    assert len(asked) == 2


def test_banner_put_away_in_the_application_or_on_another_site_is_away_here(embedding, alice, visit):
    page, elsewhere = visit(), visit()
    id = alice.publish("Put away in the application", priority="HIGH")
    for one in (page, elsewhere):
        expect(one.locator("broadcast-inbox .banner")).to_be_visible()
    bob = HttpSession.sign_in(embedding, "bob")
    assert bob.post(f"/inbox/{id}/dismiss").status == 303
    for one in (page, elsewhere):
        expect(one.locator("broadcast-inbox .banner")).to_have_count(0)
        one.reload()
        expect(one.locator("broadcast-inbox")).to_have_attribute("data-state", "live")
        expect(one.locator("broadcast-inbox .banner")).to_have_count(0)
    alice.publish("Put away on a page", priority="HIGH")
    page.get_by_role("button", name="Dismiss: Put away on a page").click()
    expect(elsewhere.locator("broadcast-inbox .banner")).to_have_count(0)
    wait_for(lambda: bob.get("/inbox/alerts").json["waiting"] == [], description="the application to know")
    bob.close()


def test_edit_changes_an_open_banner_and_shown_again_it_comes_back(alice, visit):
    page = visit()
    id = alice.publish("Storm at noon", priority="HIGH")
    banner = page.locator("broadcast-inbox .banner")
    expect(banner).to_contain_text("Storm at noon")
    edit(alice, id, title="Storm at one")
    expect(banner).to_contain_text("Storm at one")
    page.get_by_role("button", name="Dismiss: Storm at one").click()
    expect(banner).to_have_count(0)
    page.goto("about:blank")
    edit(alice, id, title="Storm at two", notifyAgain=True)
    page.go_back()
    expect(banner).to_contain_text("Storm at two")


def edit(alice: HttpSession, id: int, **changes) -> None:
    version = alice.get(f"/api/admin/broadcasts/{id}").headers["ETag"]
    assert alice.send("PATCH", f"/api/admin/broadcasts/{id}", changes, If_Match=version).status == 200


_CLOBBERING = """([tag, byId, names]) => new MutationObserver((_, watcher) => {
  const main = Document.prototype.querySelector.call(document, "main");
  if (!main) return;
  watcher.disconnect();
  for (const name of names) for (const again of [1, 2]) {
    const made = Document.prototype.createElement.call(document, tag);
    if (byId) made.id = name;
    made.name = name;
    if (name === "currentScript") made.setAttribute("src", "https://evil.example/embed.js");
    main.append(made);
  }
}).observe(document, { childList: true, subtree: true })"""


@pytest.mark.parametrize("by_id", [False, True])
@pytest.mark.parametrize("tag", ["img", "form"])
def test_markup_of_the_page_cannot_choose_where_tokens_go(alice, visit, site, tag, by_id):
    """Elements with a name hide properties of `document` and `window`: who may write no script could so be one."""
    names = (
        "currentScript createElement createElementNS createTextNode addEventListener visibilityState body trustedTypes"
    )
    page = visit("about:blank", state="")
    page.context.add_init_script(f"({_CLOBBERING})({json.dumps([tag, by_id, names.split()])})")
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    page.goto(site.url)
    expect(page.locator("broadcast-inbox")).to_have_attribute("data-state", "live")
    assert page.evaluate("!(document.currentScript instanceof HTMLScriptElement) && Boolean(document.createElement)")
    assert page.evaluate("typeof document.createElement !== 'function'")
    alice.publish(f"Clobbered by {tag} {by_id}", content="Some **text**.", priority="HIGH")
    expect(page.get_by_role("button", name="Messages, 1 unread")).to_be_visible()
    page.locator("broadcast-inbox .banner .title").click()
    expect(page.locator("broadcast-inbox article strong")).to_have_text("text")
    assert not [url for url in asked if "evil.example" in url and not url.endswith("/embed.js")]


@pytest.mark.parametrize("size", [DESKTOP_VIEWPORT, PHONE_VIEWPORT], ids=["wide", "narrow"])
def test_every_digit_of_the_count_is_in_the_badge(alice, visit, size):
    page = visit(viewport=size)
    sent = 0
    for count, text in [(1, "1"), (9, "9"), (10, "10"), (19, "19"), (99, "99"), (100, "99+")]:
        while sent < count:
            alice.publish(f"Number {sent} {size['width']}")
            sent += 1
        badge = page.locator("broadcast-inbox .badge")
        expect(badge).to_have_text(text)
        assert_badge_fits_text(page, badge)
