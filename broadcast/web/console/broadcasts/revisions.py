"""What was changed when: the revisions of a live broadcast, as the log has them; each is compared when it is asked for."""

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from flask import Blueprint

from broadcast.base.cooperative import Breath
from broadcast.base.errors import NotFound
from broadcast.domain.card import Card
from broadcast.domain.permissions import Permission
from broadcast.store import broadcasts, log
from broadcast.web.core import text_diff
from broadcast.web.core.identity import allow
from broadcast.web.core.rendering import is_htmx, page

blueprint = Blueprint("revisions", __name__)

MOST = 20  # newest revisions shown; the log has the others


@dataclass(frozen=True, slots=True)
class Revision:
    """`names` are the fields in which it differs from the one before it."""

    number: int
    at: datetime
    names: list[str]
    again: bool


@dataclass(frozen=True, slots=True)
class Change:
    name: str
    parts: list[text_diff.Part]
    is_coarse: bool


class _Text(NamedTuple):
    at: datetime
    card: Card
    again: bool


@blueprint.get("/broadcasts/<int:broadcast_id>/revisions/<int:number>")
@allow(Permission.SEE)
def revision(broadcast_id: int, number: int):
    """What one revision changed, word by word: a part of the broadcast's page, or a page of its own."""
    broadcast = broadcasts.by_id(broadcast_id)
    texts = pairwise(_texts(broadcast_id)) if broadcast else ()
    found = next(((before, after) for before, after in texts if after.card.revision == number), None)
    if found is None:
        raise NotFound("There is no such revision, or it is older than those that are kept.")
    before, after = found
    changed = _changes(before.card, after.card)
    if is_htmx():
        return page("console/broadcasts/_difference.html", changed=changed)
    return page("console/broadcasts/revision.html", broadcast=broadcast, number=number, at=after.at, changed=changed)


def of(broadcast_id: int) -> list[Revision]:
    """The newest revisions, newest first; the text it was sent with is none. Lets other greenlets run."""
    found = [
        Revision(after.card.revision, after.at, _names(before.card, after.card), after.again)
        for before, after in pairwise(_texts(broadcast_id))
    ]
    return found[::-1]


def _texts(broadcast_id: int) -> list[_Text]:
    """The text it was sent with and those of the newest revisions, in order."""
    breath, texts = Breath(), []
    for event in log.texts_of(broadcast_id, limit=MOST + 1):
        payload = event.payload
        texts.append(_Text(event.at, Card.from_payload(payload), bool(payload.get("again"))))
        breath.take()
    return texts


def _names(old: Card, new: Card) -> list[str]:
    return [name for key, name in _FIELDS if getattr(old, key) != getattr(new, key)]


def _changes(old: Card, new: Card) -> list[Change]:
    changes, breath = [], Breath()
    for key, name in _FIELDS:
        before, after = _words(old, key), _words(new, key)
        if before != after:
            changes.append(Change(name, *text_diff.compare(before, after)))
            breath.take()
    return changes


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
