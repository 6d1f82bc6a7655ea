"""Problems of streams in a browser: proxies that answer for the server, sleeping tabs, and many tabs."""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.e2e.browser.conftest import CHROMIUM, UserBrowser
from tests.support.http_session import HttpSession
from tests.support.system import System, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.alike]

_STREAM = re.compile(r"/inbox/stream")
_AGAIN_MS = 60_000
# a headless Chromium hides no tab
_VISIBILITY = """
window.look = (state) => {
  Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
};
"""
_HTML = {"content_type": "text/html"}
_ANSWERS = {
    "429": {"status": 429} | _HTML,
    "502": {"status": 502} | _HTML,
    "503": {"status": 503} | _HTML,
    "page": _HTML,
}


class Proxy:
    """Stands before the stream of one desk, and answers its next request with what is no stream. `asked` are all requests."""

    def __init__(self, desk: UserBrowser, name: str):
        self.desk, self.name = desk, name
        self.body = f"<h1>Proxy error {secrets.token_hex(4)}</h1>"
        self.asked: list = []
        self._answers = 0
        desk.context.route(_STREAM, self._on_request)

    def answer_next(self) -> None:
        self._answers += 1

    @property
    def has_answered(self) -> bool:
        return self._answers == 0

    def _on_request(self, route: Route) -> None:
        self.asked.append(route.request)
        if self._answers:
            self._answers -= 1
            route.fulfill(body=self.body, **_ANSWERS[self.name])
        else:
            route.continue_()


@pytest.fixture
def proxies(sit_down: Callable[..., UserBrowser]) -> list[Proxy]:
    """A desk of Bob's behind each kind of proxy."""
    return [Proxy(sit_down("bob"), name) for name in _ANSWERS]


@pytest.fixture
def cut_off(system: System, alice: HttpSession) -> Callable[..., None]:
    """Ends every stream of Bob's from the server's side, as a network does: without a word."""

    def listed() -> list[str]:
        rows = alice.get("/console/connections").text.split("<tr")
        return [found[1] for row in rows if ">Bob" in row and (found := re.search(r"/connections/([^/]+)/close", row))]

    def cut(count: int = 1) -> None:
        bob = HttpSession(system, token=system.get_token("bob"))
        # other workers' streams are known a moment after they were opened
        for connection_id in wait_for(
            lambda: len(listed()) >= count and listed(), description=f"{count} streams of Bob's"
        ):
            assert bob.send("POST", f"/api/sse/disconnect?connectionId={connection_id}").status == 204
        bob.close()

    return cut


def test_first_stream_answered_by_a_proxy_is_tried_again_by_itself(proxies: list[Proxy], alice: HttpSession):
    """F16, first connect: 429, 502, 503, or a page with status 200."""
    for proxy in proxies:
        proxy.answer_next()
        _open(proxy.desk.page)
    sent = alice.publish(f"While no stream is open {secrets.token_hex(4)}")
    _expect_recovered(proxies, sent)


def test_stream_that_comes_back_to_a_proxy_is_tried_again_with_its_cursor(
    proxies: list[Proxy], alice: HttpSession, cut_off: Callable[..., None]
):
    """F16, reconnect: what was published meanwhile comes over the stream, by the cursor; the list is not loaded anew."""
    for proxy in proxies:
        _open(proxy.desk.page)
        proxy.desk.expect_live()
    first = alice.publish(f"Moves the cursor {secrets.token_hex(4)}")
    for proxy in proxies:
        expect(proxy.desk.card(first)).to_be_visible()
        proxy.answer_next()
    lists = _watch_for_lists(proxies)
    cut_off(len(proxies))
    for proxy in proxies:
        expect(proxy.desk.page.locator("#connection")).not_to_have_attribute("data-state", "live")
    sent = alice.publish(f"While the proxy answers {secrets.token_hex(4)}")
    _expect_recovered(proxies, sent)
    for proxy in proxies:
        proxy.desk.expect_first_cards([sent, first])
        proxy.desk.expect_unread(2)
    assert lists == []


def _open(page: Page) -> None:
    page.goto("/inbox")
    page.evaluate("window.openedOnce = true")


def _watch_for_lists(proxies: list[Proxy]) -> list[str]:
    found: list[str] = []
    for proxy in proxies:
        proxy.desk.context.on("request", lambda request: "/inbox/list" in request.url and found.append(request.url))
    return found


def _expect_recovered(proxies: list[Proxy], sent: int) -> None:
    for proxy in proxies:
        expect(proxy.desk.card(sent)).to_be_visible(timeout=_AGAIN_MS)
        expect(proxy.desk.page.locator("#connection")).to_have_attribute("data-state", "live", timeout=_AGAIN_MS)
        assert proxy.has_answered, f"{proxy.name} was never answered"
        assert proxy.desk.page.evaluate("window.openedOnce"), "the page was loaded anew"
        assert proxy.body not in proxy.desk.page.content()
        assert "Proxy error" not in proxy.desk.page.content()
        assert all("after=" in request.url for request in proxy.asked), "a stream was opened without its cursor"


# ---- F25: tabs that sleep, and many tabs


def test_frozen_tab_is_current_when_it_wakes(sit_down: Callable[..., UserBrowser], alice: HttpSession):
    """F25: Chromium stops a tab in the background altogether; its stream is open, and nobody listens."""
    bob = sit_down("bob").open_inbox()
    with _frozen(bob.page):
        sent = [alice.publish(f"While frozen {n} {secrets.token_hex(4)}") for n in range(3)]
    expect(bob.card(sent[-1])).to_be_visible()
    bob.expect_first_cards(sent[::-1])
    bob.expect_unread(3)
    bob.expect_live()


def test_frozen_tab_whose_stream_ended_is_current_when_it_wakes(
    sit_down: Callable[..., UserBrowser], alice: HttpSession, cut_off: Callable[..., None]
):
    """F25: a laptop that slept for longer than the server waits."""
    bob = sit_down("bob").open_inbox()
    with _frozen(bob.page):
        cut_off()
        sent = [alice.publish(f"While asleep {n} {secrets.token_hex(4)}") for n in range(3)]
    expect(bob.card(sent[-1])).to_be_visible(timeout=_AGAIN_MS)
    bob.expect_first_cards(sent[::-1])
    bob.expect_unread(3)
    bob.expect_live()


@contextmanager
def _frozen(page: Page) -> Iterator[None]:
    """No script of the page runs meanwhile."""
    session = page.context.new_cdp_session(page)
    session.send("Page.setWebLifecycleState", {"state": "frozen"})
    yield
    session.send("Page.setWebLifecycleState", {"state": "active"})
    session.detach()


def test_hidden_tab_is_current_as_soon_as_it_is_looked_at(
    sit_down: Callable[..., UserBrowser], alice: HttpSession, cut_off: Callable[..., None]
):
    """F25: timers of a tab in the background come late, here not at all, so that its next try would be far away."""
    bob = sit_down("bob")
    proxy = Proxy(bob, "502")
    bob.page.clock.install()
    bob.page.add_init_script(_VISIBILITY)
    bob.open_inbox()
    bob.page.evaluate("look('hidden')")
    bob.page.clock.pause_at(time.time() + 10)
    proxy.answer_next()
    cut_off()
    bob.wait_until(lambda: proxy.has_answered, description="the proxy to answer")
    sent = alice.publish(f"While hidden {secrets.token_hex(4)}")
    asked = len(proxy.asked)
    bob.page.evaluate("look('visible')")
    bob.wait_until(lambda: len(proxy.asked) == asked + 1, description="the stream to be asked for at once")
    bob.page.clock.resume()  # the card waits for others that may come with it
    expect(bob.card(sent)).to_be_visible()
    assert len(proxy.asked) == asked + 1
    bob.expect_unread(1)
    bob.expect_live()


@pytest.fixture
def remembering(chromium: Browser) -> Iterator[Browser]:
    """A Chromium that keeps pages for the way back: one with windows, and Playwright's own start switches that off."""
    if CHROMIUM is None:
        pytest.skip("no Chromium with windows on this machine: apt-get install chromium, or set CHROMIUM_PATH")
    browser = chromium.browser_type.launch(
        executable_path=CHROMIUM,
        args=["--no-sandbox", "--disable-dev-shm-usage"],
        ignore_default_args=["--disable-back-forward-cache"],
    )
    yield browser
    browser.close()


def test_page_one_comes_back_to_is_current(remembering: Browser, system: System, alice: HttpSession):
    """F25: the back button brings a page that the browser kept as it was; it becomes current and leads its stream again."""
    context = remembering.new_context(base_url=system.url)
    name, _, value = HttpSession.sign_in(system, "bob").headers["Cookie"].partition("=")
    context.add_cookies([{"name": name, "value": value, "url": system.url}])
    context.route("**/inbox", _without_no_store)
    context.add_init_script("addEventListener('pageshow', (event) => console.log(`kept: ${event.persisted}`))")
    bob = UserBrowser(system, context)
    kept = []
    context.on("console", lambda message: kept.append(message.text) if "kept:" in message.text else None)
    bob.open_inbox()
    bob.page.goto(system.url + "/healthz")
    sent = alice.publish(f"While elsewhere {secrets.token_hex(4)}")
    bob.page.go_back(wait_until="commit")
    expect(bob.card(sent)).to_be_visible()
    bob.expect_live()
    later = alice.publish(f"Once back {secrets.token_hex(4)}")
    expect(bob.card(later)).to_be_visible()
    bob.expect_first_cards([later, sent])
    bob.expect_unread(2)
    assert bob.script_errors == []
    assert "kept: true" in kept, "the browser loaded the page anew, so this showed nothing about kept ones"
    context.close()


def _without_no_store(route: Route) -> None:
    """Some browsers keep a page in spite of it, Chromium does not."""
    answer = route.fetch()
    headers = {name: value for name, value in answer.headers.items() if name != "cache-control"}
    route.fulfill(response=answer, headers=headers)


def test_ten_tabs_are_all_usable_and_current(sit_down: Callable[..., UserBrowser], alice: HttpSession):
    """F25: HTTP/1.1 gives a site six connections; ten streams would leave none for the seventh tab's page."""
    desk = sit_down("bob")
    tabs = [desk.page, *(desk.context.new_page() for _ in range(9))]
    for tab in tabs:
        tab.goto("/inbox")
    for tab in tabs:
        expect(tab.locator("#connection")).to_have_attribute("data-state", "live")
    sent = alice.publish(f"For ten tabs {secrets.token_hex(4)}")
    for tab in tabs:
        expect(desk.card(sent, tab)).to_be_visible()
        desk.expect_unread(1, tab)
        assert tab.evaluate("fetch('/inbox/count').then(answer => answer.status)") == 200
    assert len(desk.stream_workers) == 1


def test_seven_tabs_over_plain_http_share_one_stream(sit_down: Callable[..., UserBrowser], alice: HttpSession):
    """Without TLS there are no Web Locks, and the seventh connection to a site hangs."""
    bob = sit_down("bob")
    bob.context.add_init_script("Object.defineProperty(navigator, 'locks', { value: undefined })")
    bob.open_inbox()
    tabs = [bob.page, *(bob.context.new_page() for _ in range(6))]
    for tab in tabs[1:]:
        bob.open_inbox(tab)
    assert len(bob.stream_pages) == 1
    sent = alice.publish(f"For seven tabs {secrets.token_hex(4)}")
    for tab in tabs:
        expect(bob.card(sent, tab)).to_be_visible()
    tabs[0].close()
    late = alice.publish(f"After the leader {secrets.token_hex(4)}")
    for tab in tabs[1:]:
        expect(bob.card(late, tab)).to_be_visible(timeout=_AGAIN_MS)
    assert len(bob.stream_pages) == 2
