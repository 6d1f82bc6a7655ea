"""Regenerates the pictures of `docs/tour.md`: `python -m tests.support.tour_screenshots [folder]`, docs/img by default.

Starts its own system with the demo users and invented staff who have read some messages, and takes screenshots.
"""

import random
import sys
import tempfile
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from broadcast.actions import accounts, broadcasts, users
from broadcast.actions.demo import DEMO_USERS
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.audience import EveryoneAudience
from broadcast.domain.message import parse_draft
from broadcast.factory import create_app
from broadcast.store import audiences, receipts
from broadcast.store import broadcasts as stored
from broadcast.store import users as known
from broadcast.store.transactions import write_transaction
from tests.e2e.browser.conftest import CHROMIUM, DESKTOP_VIEWPORT, PHONE_VIEWPORT, fill_compose_form, go_to_step
from tests.support.system import PROJECT_ROOT, System

_FIRST_NAMES = "Amir Bea Carla Dario Elif Femi Greta Hugo Ines Jan Kaya Lena Mika Nora Omar Pia Rosa Sven Tara Uli"
_LAST_NAMES = "Abel Brandt Costa Doyle Engel Fuchs Grau"
_ROLES = ("ops", "sales", "support", "finance")
_POLICY_MESSAGE = {
    "title": "Please read: travel is booked in one tool from December",
    "content": "From **1 December** every trip is booked in the travel tool.\n\n"
    "1. Ask your lead\n2. Book in the tool\n3. Keep the receipts",
    "targetType": "ALL",
    "category": "Policy",
    "requiresAck": True,
    "actions": [{"label": "Open the policy", "url": "https://example.com/"}],
}
_OTHER_MESSAGES = [
    ({"title": "VPN gateway Frankfurt is slow", "content": "We are on it. Next word at **14:00 UTC**.", "targetType": "ROLE",
      "targetIds": ["ops", "support"], "priority": "HIGH", "category": "Incident"}, 2),
    ({"title": "Lunch talk: how our search works", "content": "Thursday in the library, and on the screen at home.",
      "targetType": "ALL", "category": "News"}, 30),
    ({"title": "Quarter closes on Friday", "content": "Hand in what is open until Thursday noon.", "targetType": "ROLE",
      "targetIds": ["finance", "sales"], "category": "Finance"}, 50),
]  # fmt: skip


def main() -> None:
    output_dir = Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT_ROOT / "docs" / "img"
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temp_dir, sync_playwright() as playwright:
        system = System(Path(temp_dir), DEMO="1")
        system.start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            policy = _seed_data(Path(temp_dir) / "var")
            _take_screenshots(browser, system.url, policy, output_dir)
        finally:
            browser.close()
            system.stop()


def _seed_data(data_dir: Path) -> int:
    """Add users, recent broadcasts and their receipts. Returns the id of the broadcast with the most to show."""
    app, now, rng = create_app(Settings.load({"DATA_DIR": str(data_dir)})), clock.now(), random.Random(7)
    with app.app_context():
        alice = known.get_by_username("alice")
        author = Actor(alice.id, alice.name, alice.roles, may_administer=True)
        names = [f"{first} {last}" for first in _FIRST_NAMES.split() for last in _LAST_NAMES.split()]
        for n, full_name in enumerate(names):
            username, roles = full_name.lower().replace(" ", "."), [_ROLES[n % 4]]
            users.create_user(username, None, name=full_name, roles=roles, by=SYSTEM, now=now - timedelta(days=90))
        ids = audiences.list_user_ids(EveryoneAudience())
        for user_id in ids[::12]:
            accounts.save_preferences({"mutedCategories": ["News"]}, by=Actor(user_id, "x"), now=now)
        for raw, age_hours in _OTHER_MESSAGES:
            broadcast_id = broadcasts.publish(
                parse_draft(raw, now=now), by=author, now=now - timedelta(hours=age_hours)
            ).id
            _simulate_receipts(broadcast_id, now - timedelta(hours=age_hours), now, rng)
        published_at = now - timedelta(hours=20)
        due = {"ackDueAt": clock.to_rfc3339(now + timedelta(days=4))}
        policy = broadcasts.publish(
            parse_draft(_POLICY_MESSAGE | due, now=published_at), by=author, now=published_at
        ).id
        _simulate_receipts(policy, published_at, now, rng)
    return policy


def _simulate_receipts(broadcast_id: int, published_at: datetime, now: datetime, rng: random.Random) -> None:
    """Add receipts: most recipients get the broadcast soon, many read it within hours, some never."""
    broadcast, pairs_by_mark = stored.get(broadcast_id), defaultdict(list)
    columns = ("delivered_at", "first_seen_at", "read_at", "acked_at")[: 4 if broadcast.requires_ack else 3]
    for user_id in audiences.list_user_ids(audiences.get_audience(broadcast)):
        marked_at = published_at + timedelta(minutes=rng.expovariate(1 / 8))
        for column in columns:
            if marked_at > now or rng.random() < 0.09:
                break
            pairs_by_mark[column, marked_at].append((broadcast_id, user_id))
            marked_at += timedelta(minutes=rng.expovariate(1 / 70))
    with write_transaction() as session:
        for (column, marked_at), pairs in pairs_by_mark.items():
            receipts.set_timestamp(session, pairs, column, at=marked_at)


def _take_screenshots(browser: Browser, url: str, policy: int, output_dir: Path) -> None:
    def sign_in(viewport: dict[str, int], color_scheme: str, username: str = "alice") -> Page:
        context = browser.new_context(
            base_url=url, viewport=viewport, color_scheme=color_scheme, reduced_motion="reduce"
        )
        page = context.new_page()
        page.goto("/login")
        [person] = [person for person in DEMO_USERS if person.username == username]
        page.get_by_label("Username").fill(person.username)
        page.get_by_label("Password").fill(person.password)
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.wait_for_url("**/inbox")
        return page

    def take_screenshot(page: Page, path: str, name: str) -> None:
        if path:
            page.goto(path)
        page.wait_for_timeout(1500)  # for what scripts load, and the stream
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=output_dir / f"{name}.png")

    desktop, desktop_dark, phone, phone_dark = (
        sign_in(DESKTOP_VIEWPORT, "light"),
        sign_in(DESKTOP_VIEWPORT, "dark"),
        sign_in(PHONE_VIEWPORT, "light"),
        sign_in(PHONE_VIEWPORT, "dark"),
    )
    take_screenshot(desktop, "/console/", "overview-1280-light")
    take_screenshot(desktop_dark, "/console/broadcasts", "list-1280-dark")
    take_screenshot(desktop, f"/console/broadcasts/{policy}", "broadcast-1280-light")
    take_screenshot(phone_dark, f"/console/broadcasts/{policy}", "broadcast-390-dark")
    take_screenshot(phone, f"/console/broadcasts/{policy}/figures", "figures-390-light")
    take_screenshot(phone_dark, "/console/broadcasts", "list-390-dark")
    _fill_compose_page(desktop)
    take_screenshot(desktop, "", "compose-1280-light")
    _fill_compose_page(phone)
    go_to_step(phone, "review")
    take_screenshot(phone, "", "compose-390-light")
    take_screenshot(desktop_dark, "/console/people?q=gr", "people-1280-dark")
    take_screenshot(sign_in(DESKTOP_VIEWPORT, "light", "bob"), "/inbox", "inbox-1280-light")
    take_screenshot(sign_in(PHONE_VIEWPORT, "dark", "bob"), "/inbox", "inbox-390-dark")


def _fill_compose_page(page: Page) -> None:
    fill_compose_form(
        page,
        "Fire drill on Friday, 10:00",
        "Leave by the **nearest stairs**, not the lift, and meet at the car park.",
        roles=("ops", "support"),
    )
    go_to_step(page, "write")
    page.get_by_label("Category").fill("News")
    go_to_step(page, "audience")
    page.get_by_text("Send to").wait_for(state="attached")
    page.wait_for_timeout(1500)  # for the preview and the recipient count


if __name__ == "__main__":
    main()
