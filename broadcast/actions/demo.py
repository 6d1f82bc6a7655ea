"""Demo users and broadcasts. The passwords are public, so production refuses them (see `Settings`)."""

from dataclasses import asdict, dataclass
from datetime import timedelta

from broadcast.actions import broadcasts, users
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.message import parse_draft
from broadcast.store import broadcasts as stored
from broadcast.store import email_addresses
from broadcast.store import users as known
from broadcast.store.transactions import write_transaction


@dataclass(frozen=True, slots=True)
class DemoUser:
    username: str
    name: str
    roles: tuple[str, ...]
    password: str


DEMO_USERS = [
    DemoUser("alice", "Alice Adler", ("admin",), "alice-demo-1"),
    DemoUser("bob", "Bob Berger", ("ops",), "bob-demo-1"),
    DemoUser("dana", "Dana Diaz", ("sales",), "dana-demo-1"),
    DemoUser("charlie", "Charlie Chen", (), "charlie-demo-1"),
]

_DEMO_BROADCASTS = [
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
    """Create the demo users, and the broadcasts if there has never been any. Idempotent."""
    now = clock.now()
    for demo_user in DEMO_USERS:
        if known.get_by_username(demo_user.username) is None:
            user_id = users.create_user(**asdict(demo_user), by=SYSTEM, now=now)
            if SETTINGS.current.smtp_server is None:  # their mails are files, and no server is asked to send there
                with write_transaction() as session:
                    address = f"{demo_user.username}@example.com"
                    email_addresses.set_verified(session, user_id, address, at=now, is_from_provider=False)
    if stored.list_page("all", limit=1):
        return
    alice = known.get_by_username("alice")
    actor = Actor(alice.id, alice.name, alice.roles, may_administer=True)
    for fields in _DEMO_BROADCASTS:
        broadcasts.publish(parse_draft(fields, now=now), by=actor, now=now)
    scheduled_fields = {
        "title": "Office closed on Friday",
        "content": "The building is closed for the fire drill. Please work from home.",
        "targetType": "ALL",
        "scheduledAt": clock.to_rfc3339(now + timedelta(days=2)),
        "expiresAt": clock.to_rfc3339(now + timedelta(days=4)),
    }
    broadcasts.publish(parse_draft(scheduled_fields, now=now), by=actor, now=now)
