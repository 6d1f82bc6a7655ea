"""Fixtures: a real Chromium, and browsers of signed-in users.

Playwright's synchronous API delivers events only while one of its calls runs: wait with `expect`, or
`UserBrowser.wait_until`.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Locator, Page, expect, sync_playwright

from tests.support.http_session import HttpSession
from tests.support.process_fixtures import own_system, streams  # noqa: F401 - fixtures
from tests.support.system import TIMEOUT_FACTOR, System, wait_for


def _find_browser(*names: str) -> str | None:
    return os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, names)), None)


CHROMIUM = _find_browser("chromium", "google-chrome")
# The same engine without windows: a page costs less than half of the CPU time, and background tabs still render.
HEADLESS_CHROMIUM = _find_browser("chromium-headless-shell", "chromium", "google-chrome")
_CHROMIUM_FLAGS = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
DESKTOP_VIEWPORT, PHONE_VIEWPORT = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

expect.set_options(timeout=TIMEOUT_FACTOR * 10_000)


_WAIT_UNTIL_VISIBLE_JS = """() => window.broadcastPage && new Promise((seen) => {
  const observer = new IntersectionObserver(() => { observer.disconnect(); seen(); });
  observer.observe(document.body);
})"""
_original_click = Locator.click


def _click_when_visible(locator: Locator, **options: Any) -> None:
    """Click after the next frame. A control that has just appeared is disabled for a second from the next frame on, and
    an earlier click would be lost.

    Playwright itself waits for controls that are already disabled.
    """
    with suppress(Error):  # the page was left
        locator.page.evaluate(_WAIT_UNTIL_VISIBLE_JS)
    _original_click(locator, **options)


@pytest.fixture(scope="session", autouse=True)
def presses_after_the_next_frame() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Locator, "click", _click_when_visible)
        yield


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if HEADLESS_CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium-headless-shell, or set CHROMIUM_PATH")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-sync", *_CHROMIUM_FLAGS]
        browser = playwright.chromium.launch(executable_path=HEADLESS_CHROMIUM, args=arguments)
        yield browser
        browser.close()


class UserBrowser:
    """One user's browser: `page` is its first tab. `stream_workers` are the processes that served its streams."""

    def __init__(self, system: System, context: BrowserContext):
        self.system, self.context = system, context
        self.stream_workers: list[int] = []
        self.stream_pages: list[Page] = []
        self.console_errors: list[str] = []
        self.script_errors: list[str] = []
        self.dialogs: list[str] = []
        context.on("response", self._on_response)
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self.script_errors.append(str(error.error)))
        context.on("dialog", self._on_dialog)
        self.page = context.new_page()

    @property
    def policy_violations(self) -> list[str]:
        return [text for text in self.console_errors if "Content Security Policy" in text]

    @property
    def worker(self) -> int:
        """The worker that serves the stream now."""
        return self.stream_workers[-1]

    def open_inbox(self, page: Page | None = None) -> "UserBrowser":
        """Open the inbox and wait until it is live."""
        page = page or self.page
        page.goto("/inbox")
        self.expect_live(page)
        return self

    def expect_live(self, page: Page | None = None) -> None:
        expect((page or self.page).locator("#connection")).to_have_attribute("data-state", "live")
        self.wait_until(lambda: self.stream_workers, description="a stream")

    def wait_until(
        self, condition: Callable[[], object], *, seconds: float = 10, description: str = "the condition"
    ) -> None:
        def poll() -> object:
            self.context.pages[0].evaluate("null")  # lets Playwright deliver events
            return condition()

        wait_for(poll, seconds=seconds, description=description)

    def card(self, broadcast_id: int, page: Page | None = None) -> Locator:
        return (page or self.page).locator(f"#card-{broadcast_id}")

    def card_ids(self, page: Page | None = None) -> list[int]:
        """Ids of the list's cards, from the top."""
        script = "articles => articles.map(article => Number(article.dataset.id))"
        return (page or self.page).locator("#feed > article").evaluate_all(script)

    def expect_cards(self, ids: list[int], page: Page | None = None) -> None:
        """Expect exactly these cards, from the top."""
        self._expect_ids(ids, lambda: self.card_ids(page))

    def expect_first_cards(self, ids: list[int], page: Page | None = None) -> None:
        """Expect the list to start with these cards."""
        self._expect_ids(ids, lambda: self.card_ids(page)[: len(ids)])

    def _expect_ids(self, ids: list[int], read_ids: Callable[[], list[int]]) -> None:
        with suppress(AssertionError):  # the comparison below shows the difference
            self.wait_until(lambda: read_ids() == ids)
        assert read_ids() == ids

    def scroll_to(self, target: Locator) -> None:
        """Scroll down until `target` is in the list: the next page loads when the end of the list comes into view."""

        def poll() -> int:
            self.page.keyboard.press("End")
            return target.count()

        self.wait_until(poll, seconds=30, description="the place to be loaded")

    def expect_unread(self, count: int, page: Page | None = None) -> None:
        """Expect this unread count in the bell, the view and the title."""
        page = page or self.page
        badge = page.locator(".bell .badge")
        if count:
            expect(badge).to_be_visible()
            expect(badge).to_have_text(str(count))
            expect(page).to_have_title(re.compile(rf"^\({count}\) "))
        else:
            expect(badge).to_be_hidden()
            expect(page).to_have_title(re.compile(r"^(?!\()"))
        expect(page.locator('.views [data-count="unread-view"]')).to_have_text(str(count))

    def expect_unread_bell(self, count: int) -> None:
        """Expect this unread count in the bell, on a page without the views."""
        expect(self.page.locator(".bell .badge")).to_have_text(str(count))

    def _on_response(self, response) -> None:
        if "/inbox/stream" in response.url and "x-worker" in response.headers and response.status == 200:
            self.stream_workers.append(int(response.headers["x-worker"]))
            self.stream_pages.append(response.request.frame.page)

    def _on_console(self, message) -> None:
        if message.type == "error":
            self.console_errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _on_dialog(self, dialog) -> None:
        self.dialogs.append(dialog.message)
        if dialog.type == "beforeunload":  # a test that leaves the page means to
            dialog.accept()
        else:
            dialog.dismiss()


@pytest.fixture
def sit_down(chromium: Browser, system: System) -> Iterator[Callable[..., UserBrowser]]:
    """`sit_down("bob")` opens a browser with Bob signed in, `sit_down(None)` an anonymous one. Takes Playwright's
    options.

    Fails on content policy violations and script errors of any page.
    """
    browsers: list[UserBrowser] = []

    def open_for(
        username: str | None, *, at: System = system, signed_in_as: HttpSession | None = None, **options
    ) -> UserBrowser:
        options = {"viewport": DESKTOP_VIEWPORT, "reduced_motion": "reduce"} | options
        context = chromium.new_context(base_url=at.url, **options)
        context.set_default_timeout(TIMEOUT_FACTOR * 30_000)
        if username:
            session = signed_in_as or HttpSession.sign_in(at, username)
            name, _, value = session.headers["Cookie"].partition("=")
            context.add_cookies([{"name": name, "value": value, "url": at.url}])
        browsers.append(UserBrowser(at, context))
        return browsers[-1]

    yield open_for
    for browser in browsers:
        browser.context.close()
    for browser in browsers:
        assert browser.policy_violations == []
        assert browser.script_errors == []


@pytest.fixture(autouse=True)
def nothing_insists(request: pytest.FixtureRequest) -> Iterator[None]:
    """Recall what would block the users of the next test on the shared system, for example an urgent dialog."""
    yield
    if "system" not in request.fixturenames:
        return
    system: System = request.getfixturevalue("system")
    alice = HttpSession(system, token=system.get_token("alice", "admin"))
    active = alice.get("/api/admin/broadcasts?filter=active&limit=200").json["items"]
    for broadcast in active:
        if broadcast["priority"] == "URGENT" or broadcast["requiresAck"]:
            alice.send("DELETE", f"/api/admin/broadcasts/{broadcast['id']}", {"reason": "The test is over"})
    alice.close()


@pytest.fixture
def sit_at_different_workers(sit_down) -> Callable[..., tuple[UserBrowser, UserBrowser]]:
    """Open the inboxes of two users until two different workers serve their streams."""

    def open_inboxes(first_username: str, second_username: str, *, at: System) -> tuple[UserBrowser, UserBrowser]:
        first = sit_down(first_username, at=at).open_inbox()
        session = HttpSession.sign_in(at, second_username)
        for _ in range(40):
            second = sit_down(second_username, at=at, signed_in_as=session).open_inbox()
            if second.worker != first.worker:
                return first, second
            second.context.close()
        raise AssertionError("40 browsers, and all streams were served by one worker")

    return open_inboxes


@pytest.fixture
def alice(system: System) -> Iterator[HttpSession]:
    """An API client that publishes on the shared system; all users have read everything before."""
    for username in ("alice", "bob", "charlie"):
        assert system.call("POST", "/api/user/messages/read-all", token=system.get_token(username))[0] == 200
    session = HttpSession(system, token=system.get_token("alice", "admin"))
    yield session
    session.close()


def fill_compose_form(page: Page, title: str, text: str, *, roles: tuple[str, ...] = (), usernames: str = "") -> None:
    """Fill in the compose form, to everyone unless roles or users are given; then it ends at the audience step."""
    page.goto("/console/broadcasts/new")
    page.get_by_label("Title", exact=True).fill(title)
    page.get_by_label("Text", exact=True).fill(text)
    if roles:
        choose_audience(page, "role")
        for role in roles:
            page.locator(f'input[name=roles][value="{role}"]').check()
    elif usernames:
        choose_audience(page, "selected")
        page.get_by_label("Usernames").fill(usernames)


def go_to_step(page: Page, step: str) -> None:
    """Show a step of the compose page: write, audience, when or review. Without scripts all steps are shown."""
    page.locator(f"#steps a[href='#step-{step}']").click()


def choose_audience(page: Page, audience: str) -> None:
    go_to_step(page, "audience")
    page.locator(f"label[for=target-{audience}]").click()


def click_send(page: Page) -> None:
    go_to_step(page, "review")
    page.locator("#send").click()


def send_broadcast(page: Page) -> int:
    """Go to the review, press the send button, and return the broadcast's id."""
    click_send(page)
    page.wait_for_url(re.compile(r"/console/broadcasts/\d+$"))
    return int(page.url.rpartition("/")[2])


def close_with_escape(dialog: Locator) -> None:
    """Press Escape and wait for the close event: it fires a frame after the dialog has gone, then focus is restored."""
    dialog.evaluate("(one) => one.addEventListener('close', () => { one.dataset.closed = 'yes'; }, { once: true })")
    dialog.page.keyboard.press("Escape")
    expect(dialog).to_have_attribute("data-closed", "yes")
    expect(dialog).to_be_hidden()
    dialog.evaluate("(one) => { delete one.dataset.closed; }")


def assert_badge_fits_text(page: Page, badge: Locator) -> None:
    """Assert that its text is on one line inside the badge, and that the badge is within the page."""
    box, characters = badge.bounding_box(), badge.evaluate(_CHARACTER_BOXES_JS)
    assert 0 <= box["x"] <= page.evaluate("innerWidth") - box["width"]
    assert box["y"] >= 0
    for character in characters:
        assert character["width"] > 0
        assert box["x"] <= character["x"] <= box["x"] + box["width"] - character["width"]
        assert abs(character["y"] + character["height"] / 2 - box["y"] - box["height"] / 2) < 4


_CHARACTER_BOXES_JS = """(badge) => [...badge.textContent].map((_, at) => {
  const range = document.createRange();
  range.setStart(badge.firstChild, at);
  range.setEnd(badge.firstChild, at + 1);
  const { x, y, width, height } = range.getBoundingClientRect();
  return { x, y, width, height };
})"""


def freeze_performance_clock(page: Page) -> None:
    """Call before opening the health page, which would take a busy machine's slow first event for a buffering proxy."""
    page.add_init_script("performance.now = () => 0")


def iterate_at_rate(page: Page, count: int, *, per_second: float) -> Iterator[int]:
    """Yield `range(count)` at most `per_second`, the rate of a measured load. No other test waits for a fixed time."""
    for number in range(count):
        next_at = time.monotonic() + 1 / per_second
        yield number
        page.wait_for_timeout(max(0.0, 1000 * (next_at - time.monotonic())))


class PageClock:
    """A fake clock of a page, advanced by the test; make it before the page is opened. The network uses real time, so
    each second of the page leaves it a moment.
    """

    def __init__(self, page: Page):
        self._page = page
        page.clock.install()

    def advance_until(self, condition: Callable[[], object], *, description: str) -> None:
        for _ in range(240):
            if condition():
                return
            self._page.clock.run_for(1000)
            self._page.wait_for_timeout(100)
        raise AssertionError(f"four minutes of the page's clock, and in vain for {description}")


def recall_broadcast(page: Page, broadcast_id: int, reason: str) -> None:
    page.goto(f"/console/broadcasts/{broadcast_id}")
    page.get_by_text("Recall this broadcast").click()
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name=re.compile("^Recall")).click()
    expect(page.locator(".notice").get_by_text(reason)).to_be_visible()
