"""The inbox in another site's page, in a browser: two origins on this machine, and the page of `docs/embed` as it is."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from broadcast.domain import clock
from tests.databases import DATABASE_URL, SECOND_REDIS_URL, database_of_its_own
from tests.e2e.conftest import NARROW, WIDE, assert_badge_holds_its_text
from tests.ports import free_port
from tests.system import TOP, System, wait_for
from tests.visitor import Visitor

pytestmark = [pytest.mark.e2e, pytest.mark.alike, pytest.mark.timeout(120)]


class Site:
    """`docs/embed/server.py` on a port of its own; `url` is its address under the name localhost: another site, not only
    another origin."""

    def __init__(self, port: int, system: System):
        self.url = f"http://localhost:{port}"
        key = system.flask("create-token", "--user", "alice", "--scope", "embed", "--label", "Intranet")
        environ = os.environ | {"BROADCAST_URL": system.url, "BROADCAST_TOKEN": key}
        self._process = subprocess.Popen(
            [sys.executable, TOP / "docs/embed/server.py", str(port)], env=environ, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def embedding(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that allows one site, and `http://elsewhere.example`, which nobody serves."""
    origins = f"http://localhost:{port},http://elsewhere.example"
    with database_of_its_own(DATABASE_URL) as url:
        folder = tmp_path_factory.mktemp("embedding")
        with System(folder, database_url=url, redis_url=SECOND_REDIS_URL, EMBED_ORIGINS=origins) as running:
            yield running


@pytest.fixture(scope="module")
def site(embedding: System, port: int) -> Iterator[Site]:
    site = Site(port, embedding)
    yield site
    site.stop()


@pytest.fixture
def alice(embedding: System) -> Iterator[Visitor]:
    """Publishes, after Bob has read everything."""
    assert embedding.call("POST", "/api/user/messages/read-all", token=embedding.token("bob"))[0] == 200
    visitor = Visitor(embedding, token=embedding.token("alice", "admin"))
    yield visitor
    for broadcast in visitor.get("/api/admin/broadcasts?filter=active&limit=200").json["items"]:
        visitor.send("DELETE", f"/api/admin/broadcasts/{broadcast['id']}", {"reason": "The test is over"})
    visitor.close()


@pytest.fixture
def visit(chromium: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """`visit()`: the site's page, with its inbox live. Nothing may break the page's content policy, or throw."""
    contexts, problems = [], []

    def go(url: str = site.url, *, state: str = "live", **options) -> Page:
        context = chromium.new_context(**{"viewport": WIDE, "reduced_motion": "reduce"} | options)
        contexts.append(context)
        context.on("weberror", lambda error: problems.append(str(error.error)))
        context.on("console", lambda told: problems.append(told.text) if is_violation(told.text) else None)
        page = context.new_page()
        wait_for(lambda: _try(page, url), what="the site")
        if state:
            expect(page.locator("broadcast-inbox")).to_have_attribute("data-state", state)
        return page

    yield go
    for context in contexts:
        context.close()
    assert problems == []


def is_violation(text: str) -> bool:
    return "Content Security" in text and "evil.example" not in text  # which a test puts into the page itself


def _try(page: Page, url: str) -> bool:
    try:
        answer = page.goto(url)
        return answer is None or answer.ok
    except Exception:  # the site is only starting
        return False


def article(page: Page, broadcast_id: int):
    return page.locator(f'broadcast-inbox article[data-id="{broadcast_id}"]')


def sign_out_elsewhere(system: System) -> None:
    bob = Visitor.signed_in(system, "bob")
    assert bob.post("/account/sessions/end-others").status == 303
    bob.close()


def unread_of_bob(system: System) -> int:
    return system.call("GET", "/api/user/messages", token=system.token("bob"))[1]["unread"]


def test_message_arrives_live_in_the_page_of_another_site_and_is_read_there(embedding, alice, visit):
    page = visit()
    bell = page.get_by_role("button", name="Messages", exact=True)
    id = alice.publish("Lifts", content="The **lifts** stand still. [More](https://example.org/)")
    expect(page.get_by_role("button", name="Messages, 1 unread")).to_be_visible()
    expect(page.locator("broadcast-inbox .status")).to_have_text("1 new message")
    page.get_by_role("button", name="Messages, 1 unread").click()
    expect(article(page, id)).to_have_attribute("data-unread", "")
    expect(article(page, id).locator("strong")).to_have_text("lifts")
    assert article(page, id).get_by_role("link", name="More").get_attribute("rel") == "noopener noreferrer nofollow"
    article(page, id).get_by_role("button", name="Lifts", exact=True).click()
    expect(article(page, id)).not_to_have_attribute("data-unread", "")
    expect(bell).to_be_visible()
    assert unread_of_bob(embedding) == 0


def test_what_is_done_elsewhere_and_recalled_is_followed(embedding, alice, visit):
    page = visit()
    read, gone = alice.publish("Read elsewhere"), alice.publish("Recalled")
    page.get_by_role("button", name="Messages, 2 unread").click()
    embedding.call("POST", f"/api/sse/read?messageId={read}", token=embedding.token("bob"))
    expect(article(page, read)).not_to_have_attribute("data-unread", "")
    alice.send("DELETE", f"/api/admin/broadcasts/{gone}", {"reason": "A mistake"})
    expect(article(page, gone)).to_have_count(0)
    expect(page.get_by_role("button", name="Messages", exact=True)).to_be_visible()


def test_urgent_message_is_a_banner_until_it_is_acknowledged(embedding, alice, visit):
    page = visit()
    id = alice.publish("Fire drill", priority="URGENT", requiresAck=True)
    banner = page.get_by_role("alert")
    expect(banner).to_contain_text("Fire drill")
    expect(page.locator("body")).to_be_focused()
    banner.get_by_role("button", name="Fire drill", exact=True).click()
    expect(banner).to_have_count(0)
    article(page, id).get_by_role("button", name="I have read and understood").click()
    expect(article(page, id).get_by_role("button", name="I have read and understood")).to_have_count(0)
    told = alice.get(f"/api/admin/broadcasts/{id}/stats").json
    assert told["acknowledged"] == 1


def test_banner_that_was_put_away_stays_away_and_the_card_stays(alice, visit):
    page = visit()
    id = alice.publish("Storm", priority="HIGH")
    page.get_by_role("button", name="Dismiss: Storm").click()
    page.reload()
    page.get_by_role("button", name="Messages, 1 unread").click()
    expect(article(page, id)).to_have_attribute("data-unread", "")
    expect(page.locator("broadcast-inbox .banner")).to_have_count(0)


def test_quiet_hours_hold_the_banner_and_never_the_message(embedding, alice, visit):
    until = clock.to_wire(clock.now() + timedelta(hours=1))
    embedding.call("PUT", "/api/user/preferences", token=embedding.token("bob"), body={"doNotDisturbUntil": until})
    page = visit()
    alice.publish("Storm that waits", priority="HIGH")
    expect(page.get_by_role("button", name="Messages, 1 unread")).to_be_visible()
    expect(page.locator("broadcast-inbox .banner")).to_have_count(0)
    embedding.call("PUT", "/api/user/preferences", token=embedding.token("bob"), body={})


def test_keys_open_walk_and_close_and_the_focus_is_never_lost(alice, visit):
    page = visit()
    first, second = alice.publish("First of two"), alice.publish("Second of two")
    bell = page.get_by_role("button", name="Messages, 2 unread")
    bell.focus()
    page.keyboard.press("Enter")
    expect(page.locator("broadcast-inbox .panel")).to_be_focused()
    for key, id in [("ArrowDown", second), ("ArrowDown", first), ("ArrowUp", second)]:
        page.keyboard.press(key)
        expect(article(page, id).locator(".title")).to_be_focused()
    page.keyboard.press("Enter")
    expect(article(page, second).locator(".title")).to_be_focused()
    alice.publish("One more")
    expect(page.locator("broadcast-inbox article")).to_have_count(3)
    expect(article(page, second).locator(".title")).to_be_focused()
    mark_read = article(page, first).get_by_role("button", name="Mark read")
    mark_read.focus()
    expect(mark_read).to_be_focused()
    page.keyboard.press("Enter")
    expect(article(page, first).locator(".title")).to_be_focused()
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
    expect(stranger.locator("broadcast-inbox .empty")).to_contain_text("could not open your messages")
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
        expect(article(page, id)).to_be_visible()
    shown = page.locator("broadcast-inbox article").evaluate_all("all => all.map((one) => Number(one.dataset.id))")
    assert shown[:3] == ids[::-1]


def test_signed_out_everywhere_is_said_in_the_page(embedding, visit):
    page = visit()
    sign_out_elsewhere(embedding)
    expect(page.locator("broadcast-inbox .foot")).to_contain_text("Signed out")


@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
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


# ---- several pages, and what is done elsewhere


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
    article(pages[5], id).get_by_role("button", name="Mark read").click()
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
    wait_for(lambda: page.evaluate("null") or ended, what="the stream to end")
    ids = [alice.publish(f"Unseen {n}") for n in range(2)]
    page.evaluate("look('visible')")
    page.get_by_role("button", name="Messages, 2 unread").click()
    for id in ids:
        expect(article(page, id)).to_be_visible()
    assert len(asked) == 2


def test_banner_put_away_in_the_application_or_on_another_site_is_away_here(embedding, alice, visit):
    page, elsewhere = visit(), visit()
    id = alice.publish("Put away in the application", priority="HIGH")
    for one in (page, elsewhere):
        expect(one.locator("broadcast-inbox .banner")).to_be_visible()
    bob = Visitor.signed_in(embedding, "bob")
    assert bob.post(f"/inbox/{id}/dismiss").status == 303
    for one in (page, elsewhere):
        expect(one.locator("broadcast-inbox .banner")).to_have_count(0)
        one.reload()
        expect(one.locator("broadcast-inbox")).to_have_attribute("data-state", "live")
        expect(one.locator("broadcast-inbox .banner")).to_have_count(0)
    alice.publish("Put away on a page", priority="HIGH")
    page.get_by_role("button", name="Dismiss: Put away on a page").click()
    expect(elsewhere.locator("broadcast-inbox .banner")).to_have_count(0)
    wait_for(lambda: bob.get("/inbox/alerts").json["waiting"] == [], what="the application to know")
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


def edit(alice: Visitor, id: int, **changes) -> None:
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


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_digit_of_the_count_is_in_the_badge(alice, visit, size):
    page = visit(viewport=size)
    sent = 0
    for count, text in [(1, "1"), (9, "9"), (10, "10"), (19, "19"), (99, "99"), (100, "99+")]:
        while sent < count:
            alice.publish(f"Number {sent} {size['width']}")
            sent += 1
        badge = page.locator("broadcast-inbox .badge")
        expect(badge).to_have_text(text)
        assert_badge_holds_its_text(page, badge)
