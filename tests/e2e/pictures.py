"""Makes the pictures of `docs/tour.md` anew: `python -m tests.e2e.pictures [folder]`, docs/img by default.

Starts a system of its own with the demo people and a made-up staff who have read some of it, and photographs its pages.
"""

import random
import sys
import tempfile
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from broadcast.actions import broadcasts, preferences, users
from broadcast.actions.demo import DEMO_PEOPLE
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.audience import Everyone
from broadcast.domain.message import read_draft
from broadcast.factory import create_app
from broadcast.store import audiences, receipts
from broadcast.store import broadcasts as stored
from broadcast.store import users as known
from broadcast.store.database import writing
from tests.e2e.conftest import CHROMIUM, NARROW, WIDE, fill_in, go_to
from tests.system import TOP, System

_FIRST = "Amir Bea Carla Dario Elif Femi Greta Hugo Ines Jan Kaya Lena Mika Nora Omar Pia Rosa Sven Tara Uli"
_LAST = "Abel Brandt Costa Doyle Engel Fuchs Grau"
_ROLES = ("ops", "sales", "support", "finance")
_POLICY = {
    "title": "Please read: travel is booked in one tool from December",
    "content": "From **1 December** every trip is booked in the travel tool.\n\n"
    "1. Ask your lead\n2. Book in the tool\n3. Keep the receipts",
    "targetType": "ALL",
    "category": "Policy",
    "requiresAck": True,
    "actions": [{"label": "Open the policy", "url": "https://example.com/"}],
}
_OTHERS = [
    ({"title": "VPN gateway Frankfurt is slow", "content": "We are on it. Next word at **14:00 UTC**.", "targetType": "ROLE",
      "targetIds": ["ops", "support"], "priority": "HIGH", "category": "Incident"}, 2),
    ({"title": "Lunch talk: how our search works", "content": "Thursday in the library, and on the screen at home.",
      "targetType": "ALL", "category": "News"}, 30),
    ({"title": "Quarter closes on Friday", "content": "Hand in what is open until Thursday noon.", "targetType": "ROLE",
      "targetIds": ["finance", "sales"], "category": "Finance"}, 50),
]  # fmt: skip


def main() -> None:
    into = Path(sys.argv[1]) if len(sys.argv) > 1 else TOP / "docs" / "img"
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        system = System(Path(name), DEMO="1")
        system.start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            policy = _fill(Path(name) / "var")
            _photograph(browser, system.url, policy, into)
        finally:
            browser.close()
            system.stop()


def _fill(data_dir: Path) -> int:
    """People, broadcasts of the last days, and who has read them when. Returns the id of the one with the most to show."""
    app, now, chance = create_app(Settings.load({"DATA_DIR": str(data_dir)})), clock.now(), random.Random(7)
    with app.app_context():
        alice = known.by_username("alice")
        by = Actor(alice.id, alice.name, alice.roles, may_administer=True)
        names = [f"{first} {last}" for first in _FIRST.split() for last in _LAST.split()]
        for n, person in enumerate(names):
            username, roles = person.lower().replace(" ", "."), [_ROLES[n % 4]]
            users.create_person(username, None, name=person, roles=roles, by=SYSTEM, now=now - timedelta(days=90))
        ids = audiences.ids_of(Everyone())
        for user_id in ids[::12]:
            preferences.save({"mutedCategories": ["News"]}, by=Actor(user_id, "x"), now=now)
        for raw, hours in _OTHERS:
            sent = broadcasts.publish(read_draft(raw, now=now), by=by, now=now - timedelta(hours=hours)).id
            _read(sent, now - timedelta(hours=hours), now, chance)
        began = now - timedelta(hours=20)
        due = {"ackDueAt": clock.to_wire(now + timedelta(days=4))}
        policy = broadcasts.publish(read_draft(_POLICY | due, now=began), by=by, now=began).id
        _read(policy, began, now, chance)
    return policy


def _read(broadcast_id: int, began: datetime, now: datetime, chance: random.Random) -> None:
    """Most of its audience have it soon, many read it within hours, some never."""
    broadcast, marks = stored.by_id(broadcast_id), defaultdict(list)
    columns = ("delivered_at", "first_seen_at", "read_at", "acked_at")[: 4 if broadcast.requires_ack else 3]
    for user_id in audiences.ids_of(audiences.of(broadcast)):
        moment = began + timedelta(minutes=chance.expovariate(1 / 8))
        for column in columns:
            if moment > now or chance.random() < 0.09:
                break
            marks[column, moment].append((broadcast_id, user_id))
            moment += timedelta(minutes=chance.expovariate(1 / 70))
    with writing() as session:
        for (column, moment), pairs in marks.items():
            receipts.mark(session, pairs, column, at=moment)


def _photograph(browser: Browser, url: str, policy: int, into: Path) -> None:
    def at(size: dict[str, int], scheme: str, username: str = "alice") -> Page:
        context = browser.new_context(base_url=url, viewport=size, color_scheme=scheme, reduced_motion="reduce")
        page = context.new_page()
        page.goto("/login")
        [person] = [person for person in DEMO_PEOPLE if person.username == username]
        page.get_by_label("Username").fill(person.username)
        page.get_by_label("Password").fill(person.password)
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.wait_for_url("**/inbox")
        return page

    def shoot(page: Page, path: str, name: str) -> None:
        if path:
            page.goto(path)
        page.wait_for_timeout(1500)  # what scripts load, and the stream
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=into / f"{name}.png")

    wide, dark, phone, night = at(WIDE, "light"), at(WIDE, "dark"), at(NARROW, "light"), at(NARROW, "dark")
    shoot(wide, "/console/", "overview-1280-light")
    shoot(dark, "/console/broadcasts", "list-1280-dark")
    shoot(wide, f"/console/broadcasts/{policy}", "broadcast-1280-light")
    shoot(night, f"/console/broadcasts/{policy}", "broadcast-390-dark")
    shoot(phone, f"/console/broadcasts/{policy}/figures", "figures-390-light")
    shoot(night, "/console/broadcasts", "list-390-dark")
    _compose(wide)
    shoot(wide, "", "compose-1280-light")
    _compose(phone)
    go_to(phone, "review")
    shoot(phone, "", "compose-390-light")
    shoot(dark, "/console/people?q=gr", "people-1280-dark")
    shoot(at(WIDE, "light", "bob"), "/inbox", "inbox-1280-light")
    shoot(at(NARROW, "dark", "bob"), "/inbox", "inbox-390-dark")


def _compose(page: Page) -> None:
    fill_in(
        page,
        "Fire drill on Friday, 10:00",
        "Leave by the **nearest stairs**, not the lift, and meet at the car park.",
        roles=("ops", "support"),
    )
    go_to(page, "write")
    page.get_by_label("Category").fill("News")
    go_to(page, "audience")
    page.get_by_text("Send to").wait_for(state="attached")
    page.wait_for_timeout(1500)  # the preview and the count follow what is typed


if __name__ == "__main__":
    main()
