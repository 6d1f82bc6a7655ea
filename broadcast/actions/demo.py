"""People and broadcasts to look around with. Their passwords are public, so production refuses them (see `Settings`)."""

from dataclasses import dataclass
from datetime import timedelta

from broadcast.actions import broadcasts, users
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.message import read_draft
from broadcast.store import broadcasts as stored
from broadcast.store import users as known


@dataclass(frozen=True, slots=True)
class DemoPerson:
    username: str
    name: str
    roles: tuple[str, ...]
    password: str


DEMO_PEOPLE = [
    DemoPerson("alice", "Alice Adler", ("admin",), "alice-demo-1"),
    DemoPerson("bob", "Bob Berger", ("ops",), "bob-demo-1"),
    DemoPerson("dana", "Dana Diaz", ("sales",), "dana-demo-1"),
    DemoPerson("charlie", "Charlie Chen", (), "charlie-demo-1"),
]

_BROADCASTS = [
    {
        "title": "Welcome to Broadcast",
        "content": "This is your inbox. New messages appear here **by themselves**, on every screen you have open.\n\n"
        "- *Unread* messages carry a dot\n- The bell counts the same in every tab\n- Nothing is lost while you are away",
        "targetType": "ALL",
        "category": "News",
    },
    {
        "title": "Database maintenance tonight, 22:00–23:00 UTC",
        "content": "The primary moves to new hardware. Expect **two short interruptions** of about a minute each.\n\n"
        "Please pause long imports before 21:45.",
        "targetType": "ROLE",
        "targetIds": ["ops"],
        "priority": "HIGH",
        "category": "Maintenance",
        "actions": [{"label": "Open the runbook", "url": "https://example.com/runbook"}],
    },
    {
        "title": "New price list from the 1st",
        "content": "The new list holds for all offers written from the 1st. Offers already sent stay as they are.",
        "targetType": "ROLE",
        "targetIds": ["sales"],
        "category": "Sales",
    },
]


def seed() -> None:
    """Make the demo people, and the broadcasts if there has never been any. Safe to repeat."""
    now = clock.now()
    for person in DEMO_PEOPLE:
        if known.by_username(person.username) is None:
            users.create_person(
                person.username, person.password, roles=person.roles, name=person.name, by=SYSTEM, now=now
            )
    if stored.counts()["all"]:
        return
    alice = known.by_username("alice")
    by = Actor(alice.id, alice.name, alice.roles, may_administer=True)
    for raw in _BROADCASTS:
        broadcasts.publish(read_draft(raw, now=now), by=by, now=now)
    later = {
        "title": "Office closed on Friday",
        "content": "The building is closed for the fire drill. Please work from home.",
        "targetType": "ALL",
        "scheduledAt": clock.to_wire(now + timedelta(days=2)),
        "expiresAt": clock.to_wire(now + timedelta(days=4)),
    }
    broadcasts.publish(read_draft(later, now=now), by=by, now=now)
