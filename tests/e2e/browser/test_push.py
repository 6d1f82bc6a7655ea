"""Push messages in Chromium: turned on by a button, shown by the service worker, and opened by a click."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, CDPSession, Locator, Page, Worker, expect

from tests.e2e.browser.conftest import CHROMIUM, DESKTOP_VIEWPORT, PHONE_VIEWPORT, UserBrowser
from tests.support.http_session import HttpSession

pytestmark = [pytest.mark.e2e, pytest.mark.alike]

# Chromium would ask its maker's push service, which no test reaches; a subscription is of the browser, for all its tabs
_SUBSCRIBE_JS = """(() => {
  const keys = { p256dh: P256DH, auth: "BTBZMqHH6r4Tts7J_aSIgg" };
  const toBase64 = (key) => key.replaceAll("-", "+").replaceAll("_", "/");
  const decode = (key) => Uint8Array.from(atob(toBase64(key)), (one) => one.charCodeAt(0)).buffer;
  const read = () => {
    const [endpoint, key] = JSON.parse(localStorage.getItem("test-subscription") ?? "[]");
    if (!endpoint) return null;
    const unsubscribe = async () => { localStorage.removeItem("test-subscription"); return true; };
    const toJSON = () => ({ endpoint, expirationTime: null, keys });
    return { endpoint, unsubscribe, options: { applicationServerKey: decode(key) }, toJSON };
  };
  PushManager.prototype.subscribe = async ({ applicationServerKey }) => {
    const endpoint = "https://fcm.googleapis.com/" + crypto.randomUUID();
    localStorage.setItem("test-subscription", JSON.stringify([endpoint, applicationServerKey]));
    return read();
  };
  PushManager.prototype.getSubscription = async () => read();
})()""".replace("P256DH", '"BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"')
_LIST_JS = """async () => (await (await navigator.serviceWorker.ready).getNotifications())
  .map(({ tag, title, body, silent }) => ({ tag, title, body, silent }))"""
_CLICK_JS = """async (tag) => {
  const [notification] = await self.registration.getNotifications({ tag });
  const opened = new Promise((resolve) => { self.clients.openWindow = async (url) => resolve(url); });
  self.dispatchEvent(new NotificationEvent("notificationclick", { notification }));
  return opened;
}"""  # only a real click may open a window


@pytest.fixture(scope="module")
def chromium(chromium: Browser) -> Iterator[Browser]:
    """The whole Chromium: the headless shell has no notifications."""
    if CHROMIUM is None:
        pytest.skip("no Chromium with notifications on this machine: apt-get install chromium")
    arguments = ["--no-sandbox", "--headless=new", "--disable-dev-shm-usage"]
    browser = chromium.browser_type.launch(executable_path=CHROMIUM, args=arguments)
    yield browser
    browser.close()


@pytest.fixture
def sit_with_push(sit_down) -> Callable[..., UserBrowser]:
    def open_for(username: str, **options) -> UserBrowser:
        browser = sit_down(username, **options)
        browser.context.grant_permissions(["notifications"])
        browser.context.add_init_script(_SUBSCRIBE_JS)
        return browser

    return open_for


def listed_browsers(page: Page) -> Locator:
    return page.get_by_role("list", name="Browsers that get push messages").get_by_role("listitem")


def turn_on(page: Page) -> None:
    page.goto("/account")
    page.get_by_role("button", name="Turn on in this browser").click()
    expect(page.get_by_text("On in this browser.", exact=True)).to_be_visible()
    expect(listed_browsers(page)).not_to_have_count(0)


def remove_all(page: Page) -> None:
    page.goto("/account")
    while listed_browsers(page).count():
        listed_browsers(page).first.get_by_role("button").click()
        expect(page.get_by_role("status").get_by_text("Removed.")).to_be_visible()


class Pusher:
    """Delivers push messages to the service worker of a browser that has turned them on."""

    def __init__(self, browser: UserBrowser):
        self.browser, self.registration_ids = browser, []
        self.session: CDPSession = browser.context.new_cdp_session(browser.page)
        self.session.on("ServiceWorker.workerRegistrationUpdated", self._on_updated)
        self.session.send("ServiceWorker.enable")
        browser.page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        browser.wait_until(lambda: self.registration_ids, description="a service worker")

    @property
    def worker(self) -> Worker:
        [worker] = self.browser.context.service_workers
        return worker

    def _on_updated(self, event: dict) -> None:
        self.registration_ids += [row["registrationId"] for row in event["registrations"] if not row["isDeleted"]]

    def push(self, id: int = 0, title: str = "", *, data: str | None = None, **changes) -> None:
        message = {"id": id, "revision": 1, "title": title, "priority": "NORMAL", "link": f"/inbox/{id}"} | changes
        values = {"origin": self.browser.system.url, "registrationId": self.registration_ids[0]}
        text = json.dumps(message) if data is None else data
        self.session.send("ServiceWorker.deliverPushMessage", values | {"data": text})

    def list_shown(self) -> list[dict]:
        return self.browser.page.evaluate(_LIST_JS)

    def expect_titles(self, *titles: str) -> None:
        def read() -> list[str]:
            return sorted(shown["title"] for shown in self.list_shown())

        with suppress(AssertionError):  # the comparison below shows the difference
            self.browser.wait_until(lambda: read() == sorted(titles))
        assert read() == sorted(titles)


@pytest.fixture
def pusher(sit_with_push) -> Pusher:
    bob = sit_with_push("bob")
    turn_on(bob.page)
    return Pusher(bob)


def test_button_turns_push_messages_on_and_another_off(sit_with_push):
    page = sit_with_push("charlie").page
    remove_all(page)
    turn_on(page)
    expect(listed_browsers(page)).to_have_count(1)
    page.get_by_role("button", name="Turn off in this browser").click()
    expect(page.get_by_text("Off in this browser.", exact=True)).to_be_visible()
    expect(listed_browsers(page)).to_have_count(0)


def sign_in(browser: UserBrowser, username: str) -> None:
    name, _, value = HttpSession.sign_in(browser.system, username).headers["Cookie"].partition("=")
    browser.context.add_cookies([{"name": name, "value": value, "url": browser.system.url}])


def test_signing_out_turns_push_messages_off(sit_with_push):
    charlie = sit_with_push("charlie")
    turn_on(charlie.page)
    charlie.page.locator("summary").click()
    charlie.page.get_by_role("button", name="Sign out").click()
    expect(charlie.page.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    sign_in(charlie, "charlie")
    charlie.page.goto("/account")
    expect(charlie.page.get_by_text("Off in this browser.", exact=True)).to_be_visible()


def test_browser_is_registered_again_after_its_session_has_ended(sit_with_push):
    charlie = sit_with_push("charlie")
    turn_on(charlie.page)
    sign_in(charlie, "charlie")
    remove_all(charlie.page)
    sign_in(charlie, "charlie")
    with charlie.page.expect_response(lambda answer: answer.request.method == "POST" and "/account/push" in answer.url):
        charlie.page.goto("/inbox")
    charlie.page.goto("/account")
    expect(listed_browsers(charlie.page)).to_have_count(1)


def test_another_user_of_the_browser_is_not_registered_without_asking(sit_with_push):
    browser = sit_with_push("charlie")
    turn_on(browser.page)
    sign_in(browser, "bob")
    browser.page.goto("/account")
    expect(browser.page.get_by_text("Off in this browser.", exact=True)).to_be_visible()


def test_message_is_shown_and_a_click_opens_it(pusher, alice):
    broadcast_id = alice.publish("Flood at nine", priority="HIGH")
    pusher.push(broadcast_id, "Flood at nine", priority="HIGH")
    pusher.expect_titles("Flood at nine")
    [shown] = pusher.list_shown()
    assert (shown["tag"], shown["body"]) == (f"broadcast-{broadcast_id}", "High priority")
    url = pusher.worker.evaluate(_CLICK_JS, shown["tag"])
    pusher.expect_titles()
    pusher.browser.page.goto(url)
    expect(pusher.browser.page.get_by_role("heading", name="Flood at nine")).to_be_visible()


def test_edit_replaces_the_notification_and_an_older_one_that_comes_late_does_not(pusher):
    pusher.push(7, "At nine")
    pusher.push(7, "At ten", revision=2)
    pusher.expect_titles("At ten")
    pusher.push(7, "At nine")
    pusher.push(8, "Another")
    pusher.expect_titles("Another", "At ten")


def test_recall_replaces_the_notification(pusher):
    pusher.push(7, "Secret")
    pusher.expect_titles("Secret")
    pusher.push(7, withdrawn=True)
    pusher.expect_titles("This message was withdrawn")
    pusher.push(7, "Secret")
    pusher.push(8, "Another")
    pusher.expect_titles("Another", "This message was withdrawn")


def test_burst_becomes_one_notification_beside_the_urgent_ones(pusher):
    pusher.push(100, "Urgent", priority="URGENT")
    for number in range(1, 13):
        pusher.push(number, f"Number {number}")
    pusher.expect_titles("Urgent", "12 new messages")
    [summary] = [shown for shown in pusher.list_shown() if shown["tag"] == "broadcast-summary"]
    assert summary["body"] == "Number 12\nNumber 11\nNumber 10"
    pusher.push(12, "Number 12 again", revision=2)
    pusher.push(11, withdrawn=True)
    pusher.expect_titles("Urgent", "11 new messages")
    assert pusher.worker.evaluate(_CLICK_JS, "broadcast-summary").endswith("/inbox?view=unread")
    pusher.expect_titles("Urgent")


@pytest.mark.parametrize(
    "data", ["", "nonsense", "[]", "null", '{"id": {}}', '{"title": "x"}', '{"link": "https://evil.example/"}']
)
def test_message_that_cannot_be_read_still_shows_something_and_leads_nowhere_else(pusher, data):
    pusher.push(data=data)
    pusher.browser.wait_until(lambda: len(pusher.list_shown()) == 1, description="a notification")


@pytest.mark.parametrize(("scheme", "size"), [("light", DESKTOP_VIEWPORT), ("dark", PHONE_VIEWPORT)])
def test_account_with_a_browser_has_no_violations(sit_with_push, scheme, size):
    page = sit_with_push("charlie", color_scheme=scheme, viewport=size).page
    turn_on(page)
    for path in ("/account", "/preferences"):
        page.goto(path)
        page.wait_for_load_state("load")
        assert Axe().run(page).response["violations"] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
