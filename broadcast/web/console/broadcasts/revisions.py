"""The revisions of a live broadcast, read from the log. Each is compared on request."""

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from flask import Blueprint

from broadcast.base.cooperative import Yielder
from broadcast.domain.card import Card
from broadcast.domain.permissions import Permission
from broadcast.store import broadcasts, log
from broadcast.web.core.identity import allow
from broadcast.web.core.lookup import or_404
from broadcast.web.core.rendering import is_htmx, render_page
from broadcast.web.core.text_diff import compare_fields

blueprint = Blueprint("revisions", __name__)

MAX_REVISIONS = 20  # newest revisions shown; the log has the rest


@dataclass(frozen=True, slots=True)
class Revision:
    """`changed_fields` are the fields that differ from the previous revision."""

    number: int
    at: datetime
    changed_fields: list[str]
    is_notified_again: bool


class _TextVersion(NamedTuple):
    at: datetime
    card: Card
    is_notified_again: bool


@blueprint.get("/broadcasts/<int:broadcast_id>/revisions/<int:number>")
@allow(Permission.SEE)
def revision(broadcast_id: int, number: int):
    """The word diff of one revision: a fragment of the detail page, or a page of its own."""
    broadcast = broadcasts.get(broadcast_id)
    texts = pairwise(_load_texts(broadcast_id)) if broadcast else ()
    pair = next(((before, after) for before, after in texts if after.card.revision == number), None)
    before, after = or_404(pair, "There is no such revision, or it is too old and no longer kept.")
    changed = compare_fields(
        (name, _to_text(before.card, key), _to_text(after.card, key)) for key, name in _FIELD_LABELS
    )
    if is_htmx():
        return render_page("console/broadcasts/_difference.html", changed=changed)
    return render_page(
        "console/broadcasts/revision.html", broadcast=broadcast, number=number, at=after.at, changed=changed
    )


def list_revisions(broadcast_id: int) -> list[Revision]:
    """The newest revisions, newest first, without the text first sent. Lets other greenlets run."""
    revisions = [
        Revision(after.card.revision, after.at, _list_changed_fields(before.card, after.card), after.is_notified_again)
        for before, after in pairwise(_load_texts(broadcast_id))
    ]
    return revisions[::-1]


def _load_texts(broadcast_id: int) -> list[_TextVersion]:
    """The text first sent and those of the newest revisions, in order."""
    yielder, texts = Yielder(), []
    for event in log.list_text_events(broadcast_id, limit=MAX_REVISIONS + 1):
        payload = event.payload
        texts.append(_TextVersion(event.at, Card.from_payload(payload), bool(payload.get("again"))))
        yielder.maybe_yield()
    return texts


def _list_changed_fields(old: Card, new: Card) -> list[str]:
    return [name for key, name in _FIELD_LABELS if getattr(old, key) != getattr(new, key)]


_FIELD_LABELS = [
    ("title", "Title"), ("content", "Text"), ("priority", "Priority"), ("category", "Category"), ("expires_at", "Ends at"),
    ("actions", "Buttons"), ("requires_ack", "Acknowledgement"), ("ack_due_at", "Acknowledge by"),
]  # fmt: skip


def _to_text(card: Card, name: str) -> str:
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
