"""What was changed when: the revisions of a live broadcast, as the log has them."""

from dataclasses import dataclass
from datetime import datetime

from broadcast.domain.card import Card
from broadcast.store import log
from broadcast.web import difference

MOST = 20  # newest revisions shown; the log has the others


@dataclass(frozen=True, slots=True)
class Revision:
    """`changes` are the fields in which it differs from the one before it."""

    number: int
    at: datetime
    changes: list["Change"]
    again: bool


@dataclass(frozen=True, slots=True)
class Change:
    name: str
    parts: list[difference.Part]


def of(broadcast_id: int) -> list[Revision]:
    """The newest revisions, newest first; the text it was sent with is none."""
    events = log.texts_of(broadcast_id, limit=MOST + 1)
    cards = [Card.from_payload(event.payload) for event in events]
    pairs = zip(events[1:], cards, cards[1:], strict=False)
    found = [
        Revision(new.revision, event.at, _changes(old, new), bool(event.payload.get("again")))
        for event, old, new in pairs
    ]
    return found[::-1]


def _changes(old: Card, new: Card) -> list[Change]:
    shown = [(name, _words(old, key), _words(new, key)) for key, name in _FIELDS]
    return [Change(name, difference.parts(before, after)) for name, before, after in shown if before != after]


_FIELDS = [
    ("title", "Title"), ("content", "Text"), ("priority", "Priority"), ("category", "Category"), ("expires_at", "Ends at"),
    ("actions", "Buttons"), ("requires_ack", "Acknowledgement"), ("ack_due_at", "Acknowledge by"),
]  # fmt: skip


def _words(card: Card, name: str) -> str:
    value = getattr(card, name)
    match value:
        case None:
            return ""
        case bool():
            return "asked for" if value else "not asked for"
        case datetime():
            return f"{value:%-d %b %Y, %H:%M} UTC"
        case tuple():
            return "\n".join(f"{link.label} → {link.url}" for link in value)
    return str(value)
