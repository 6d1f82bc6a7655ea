"""The page of one broadcast: content, status, analytics, the actions available now, and its revisions.

The revisions of a live broadcast are read from the log; each is compared on request.
"""

from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from flask import Blueprint, request

from broadcast.actions import broadcasts as actions
from broadcast.actions import edits
from broadcast.base.cooperative import Yielder
from broadcast.base.errors import Invalid
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock, lifecycle
from broadcast.domain.card import Card
from broadcast.domain.lifecycle import Status
from broadcast.domain.overdue_schedules import DecisionReason
from broadcast.domain.permissions import Permission
from broadcast.store import broadcasts, log, users
from broadcast.store.models import Broadcast
from broadcast.web.console.broadcasts import review
from broadcast.web.console.broadcasts.ladder import build_ladder
from broadcast.web.console.broadcasts.listing import load_list_items
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import get_broadcast_or_404, or_404
from broadcast.web.core.rendering import CardView, is_htmx, redirect_to, render_page
from broadcast.web.core.resumable_forms import raise_if_resumed
from broadcast.web.core.text_diff import compare_fields

blueprint = Blueprint("one", __name__)

_ACTION_PHRASES = {
    "broadcast.drafted": "created a draft",
    "broadcast.saved": "saved the draft",
    "broadcast.edited": "edited it",
    "broadcast.held": "pressed Send",
    "broadcast.withdrawn": "moved it back to draft before it was sent",
    "broadcast.discarded": "deleted the draft",
    "broadcast.archived": "archived it",
    "broadcast.scheduled": "scheduled it",
    "broadcast.published": "sent it",
    "broadcast.cancelled": "recalled it",
    "broadcast.reminded": "sent a reminder",
    "broadcast.expired": "ended it at its end time",
    "broadcast.quarantined": "sent too many messages: this one was quarantined",
    "broadcast.repeated": "sent it again",
    "broadcast.waits": "put it on hold until someone decides",
}
_FIELD_LABELS = {
    "content": "text",
    "expiresAt": "end time",
    "actions": "buttons",
    "requiresAck": "acknowledgement",
    "ackDueAt": "due date",
    "scheduledAt": "send time",
    "targetType": "audience",
    "targetIds": "recipients",
    "exceptRoles": "roles left out",
    "exceptIds": "people left out",
    "escalation": "escalation",
    "targetMatch": "how roles are joined",
}
_CARD_FIELD_LABELS = {
    "title": "Title", "content": "Text", "priority": "Priority", "category": "Category", "expires_at": "Ends at",
    "actions": "Buttons", "requires_ack": "Acknowledgement", "ack_due_at": "Acknowledge by",
}  # fmt: skip
_MAX_REVISIONS = 20  # newest revisions shown; the log has the rest


class _TextRevision(NamedTuple):
    at: datetime
    card: Card
    is_notified_again: bool


@blueprint.get("/broadcasts/<int:broadcast_id>")
@allow(Permission.SEE)
def show(broadcast_id: int):
    return _render_broadcast(get_broadcast_or_404(broadcast_id))


@blueprint.get("/broadcasts/<int:broadcast_id>/stats")
@allow(Permission.SEE)
def stats(broadcast_id: int):
    return render_page("console/broadcasts/_stats.html", **_build_context(get_broadcast_or_404(broadcast_id)))


@blueprint.get("/broadcasts/<int:broadcast_id>/revisions/<int:number>")
@allow(Permission.SEE)
def revision(broadcast_id: int, number: int):
    """The word diff of one revision: a fragment of the detail page, or a page of its own."""
    broadcast = broadcasts.get(broadcast_id)
    texts = pairwise(_load_texts(broadcast_id)) if broadcast else ()
    pair = next(((before, after) for before, after in texts if after.card.revision == number), None)
    before, after = or_404(pair, "There is no such revision, or it is too old and no longer kept.")
    changed = compare_fields(
        (name, _to_text(before.card, key), _to_text(after.card, key)) for key, name in _CARD_FIELD_LABELS.items()
    )
    if is_htmx():
        return render_page("console/broadcasts/_difference.html", changed=changed)
    return render_page(
        "console/broadcasts/revision.html", broadcast=broadcast, number=number, at=after.at, changed=changed
    )


@blueprint.post("/broadcasts/<int:broadcast_id>/cancel")
@allow(Permission.WRITE, is_resumable=True)
def cancel(broadcast_id: int):
    reason = request.form.get("reason", "")
    try:
        raise_if_resumed()
        actions.cancel(broadcast_id, reason=reason, by=current_identity().actor, now=clock.now())
    except Invalid as invalid:
        broadcast = get_broadcast_or_404(broadcast_id)
        return _render_broadcast(broadcast, str(invalid) or None, reason=reason), invalid.status
    return redirect_to("console.one.show", broadcast_id=broadcast_id)


@blueprint.post("/broadcasts/<int:broadcast_id>/send")
@allow(Permission.WRITE)
def send(broadcast_id: int):
    """Send a finished draft or a scheduled broadcast now, or show the review first if it needs one."""
    broadcast, now, by = get_broadcast_or_404(broadcast_id), clock.now(), current_identity().actor
    undo_seconds, confirmed = SETTINGS.current.undo_seconds, review.read_confirmation(request.form)
    if broadcast.status == Status.DRAFT and review.needs_review(broadcast):
        return redirect_to("console.compose.edit", broadcast_id=broadcast_id, _anchor="step-review")
    if undo_seconds:
        until = now + timedelta(seconds=undo_seconds)
        edits.send_delayed(broadcast_id, by=by, now=now, until=until, confirmed=confirmed)
    else:
        actions.release(broadcast_id, by=by, now=now, confirmed=confirmed)
    return redirect_to("console.one.show", broadcast_id=broadcast_id)


@blueprint.post("/broadcasts/<int:broadcast_id>/undo")
@allow(Permission.WRITE)
def undo(broadcast_id: int):
    """Undo a send within its delay: the broadcast is a draft again, open in the editor."""
    edits.withdraw_broadcast(broadcast_id, by=current_identity().actor, now=clock.now())
    return redirect_to("console.compose.edit", broadcast_id=broadcast_id)


@blueprint.post("/broadcasts/<int:broadcast_id>/duplicate")
@allow(Permission.WRITE)
def duplicate(broadcast_id: int):
    copy = edits.duplicate(broadcast_id, by=current_identity().actor, now=clock.now())
    return redirect_to("console.compose.edit", broadcast_id=copy.id)


@blueprint.post("/broadcasts/<int:broadcast_id>/delete")
@allow(Permission.WRITE)
def delete(broadcast_id: int):
    actions.discard_draft(broadcast_id, by=current_identity().actor, now=clock.now())
    return redirect_to("console.listing.listing", filter="draft")


@blueprint.post("/broadcasts/<int:broadcast_id>/archive")
@allow(Permission.WRITE)
def archive(broadcast_id: int):
    actions.archive(broadcast_id, by=current_identity().actor, now=clock.now())
    return redirect_to("console.listing.listing", filter="ended")


def _build_context(broadcast: Broadcast) -> dict[str, Any]:
    [item] = load_list_items([broadcast])
    # one in its undo delay is about to be sent, unless it waits for a decision
    is_idle = not broadcast.is_held or broadcast.decision_reason is not None
    seconds_left = 0 if is_idle else (broadcast.scheduled_at - clock.now()).total_seconds()
    allows = partial(lifecycle.can_transition, broadcast.status)
    return {
        "broadcast": item,
        "figures": item.stats,
        "broadcast_card": CardView(broadcast.to_card(), seq=broadcast.seq or 0, is_read=True),
        "can_cancel": allows("cancelled"),
        "can_send": allows("published") and broadcast.typed is None and is_idle,
        "can_edit": allows("edited") and is_idle,
        "can_discard": allows("discarded"),
        "can_archive": allows("archived") and broadcast.archived_at is None,
        "can_withdraw": allows("withdrawn"),
        "is_sending": not is_idle,
        "is_past": broadcast.decision_reason in (DecisionReason.ENDED, DecisionReason.ACK_PASSED),
        "seconds_left": max(0, round(seconds_left, 1)),
        "sent_by": broadcast.source and _describe_sender(broadcast),
    }


def _render_broadcast(broadcast: Broadcast, error: str | None = None, *, reason: str = "") -> str:
    timeline = [
        (entry, _ACTION_PHRASES.get(entry.action, entry.action) + _describe_detail(entry.detail))
        for entry in broadcasts.list_audit_entries(broadcast.id)
    ]
    return render_page(
        "console/broadcasts/detail.html",
        **_build_context(broadcast),
        **build_ladder(broadcast),
        timeline=timeline,
        history=_list_revisions(broadcast.id) if broadcast.revision > 1 and broadcast.seq else [],
        error=error,
        reason=reason,
    )


def _list_revisions(broadcast_id: int) -> list[tuple[_TextRevision, list[str]]]:
    """The newest revisions with changed fields, newest first, without the text first sent. Lets other greenlets run."""
    revisions = []
    for before, after in pairwise(_load_texts(broadcast_id)):
        names = [name for name in _CARD_FIELD_LABELS if getattr(before.card, name) != getattr(after.card, name)]
        revisions.append((after, [_CARD_FIELD_LABELS[name] for name in names]))
    return revisions[::-1]


def _load_texts(broadcast_id: int) -> list[_TextRevision]:
    """The text first sent and those of the newest revisions, in order."""
    yielder, texts = Yielder(), []
    for event in log.list_text_events(broadcast_id, limit=_MAX_REVISIONS + 1):
        payload = event.payload
        texts.append(_TextRevision(event.at, Card.from_payload(payload), bool(payload.get("again"))))
        yielder.maybe_yield()
    return texts


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


def _describe_detail(detail: dict[str, Any]) -> str:
    suffix = ", and showed it again" if detail.get("again") else ""
    if detail.get("acknowledgeAgain"):
        suffix = ", and asked for a new acknowledgement"
    if detail.get("fields"):
        return ": " + ", ".join(_FIELD_LABELS.get(name, name) for name in detail["fields"]) + suffix
    return f": “{detail['reason']}”" if detail.get("reason") else suffix


def _describe_sender(broadcast: Broadcast) -> str:
    """The sending account or topic of an inbound event. Its source is only what it calls itself."""
    if (broadcast.source_owner or "").startswith("topic:"):
        return f"Topic {broadcast.source_owner.removeprefix('topic:')}"
    return users.get_names([broadcast.sender_id]).get(broadcast.sender_id, "Unknown")
