"""The page of one broadcast: content, status, analytics, and the actions available now."""

from datetime import timedelta
from functools import partial
from typing import Any

from flask import Blueprint, request

from broadcast.actions import broadcasts as actions
from broadcast.actions import edits
from broadcast.base.errors import Invalid
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock, lifecycle
from broadcast.domain.lifecycle import Status
from broadcast.domain.overdue_schedules import DecisionReason
from broadcast.domain.permissions import Permission
from broadcast.store import broadcasts, users
from broadcast.store.models import Broadcast
from broadcast.web.console.broadcasts import review, revisions
from broadcast.web.console.broadcasts.list_rows import load_list_items
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import get_broadcast_or_404
from broadcast.web.core.rendering import CardView, redirect_to, render_page
from broadcast.web.core.resumable_forms import raise_if_resumed

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
    "targetMatch": "how roles are joined",
}


@blueprint.get("/broadcasts/<int:broadcast_id>")
@allow(Permission.SEE)
def show(broadcast_id: int):
    return _render_broadcast(get_broadcast_or_404(broadcast_id))


@blueprint.get("/broadcasts/<int:broadcast_id>/stats")
@allow(Permission.SEE)
def stats(broadcast_id: int):
    return render_page("console/broadcasts/_stats.html", **_build_context(get_broadcast_or_404(broadcast_id)))


@blueprint.post("/broadcasts/<int:broadcast_id>/cancel")
@allow(Permission.WRITE, is_resumable=True)
def cancel(broadcast_id: int):
    reason = request.form.get("reason", "")
    try:
        raise_if_resumed()
        actions.cancel(broadcast_id, reason=reason, by=current_identity().actor, now=clock.now())
    except Invalid as invalid:
        return _render_broadcast(
            get_broadcast_or_404(broadcast_id), str(invalid) or None, reason=reason
        ), invalid.status
    return redirect_to("console.one.show", broadcast_id=broadcast_id)


@blueprint.post("/broadcasts/<int:broadcast_id>/send")
@allow(Permission.WRITE)
def send(broadcast_id: int):
    """Send a finished draft or a scheduled broadcast now, or show the review first if it needs one."""
    broadcast, now, by = get_broadcast_or_404(broadcast_id), clock.now(), current_identity().actor
    undo_seconds = SETTINGS.current.undo_seconds
    if broadcast.status == Status.DRAFT and review.needs_review(broadcast):
        return redirect_to("console.compose.edit", broadcast_id=broadcast_id, _anchor="step-review")
    if undo_seconds:
        until = now + timedelta(seconds=undo_seconds)
        edits.send_delayed(broadcast_id, by=by, now=now, until=until, confirmed=review.read_confirmation(request.form))
    else:
        actions.release(broadcast_id, by=by, now=now, confirmed=review.read_confirmation(request.form))
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
    """Delete a draft."""
    actions.discard_draft(broadcast_id, by=current_identity().actor, now=clock.now())
    return redirect_to("console.listing.listing", filter="draft")


@blueprint.post("/broadcasts/<int:broadcast_id>/archive")
@allow(Permission.WRITE)
def archive(broadcast_id: int):
    actions.archive(broadcast_id, by=current_identity().actor, now=clock.now())
    return redirect_to("console.listing.listing", filter="ended")


def _build_context(broadcast: Broadcast) -> dict[str, Any]:
    """The template context of the detail page and its live figures."""
    [item] = load_list_items([broadcast])
    is_idle, allows = _is_idle(broadcast), partial(lifecycle.can_transition, broadcast.status)
    return {
        "broadcast": item,
        "figures": item.stats,
        "broadcast_card": CardView(broadcast.to_card(), seq=broadcast.seq or 0, is_read=True),
        "cancelled_at": broadcast.ended_at if broadcast.status == "CANCELLED" else None,
        "can_cancel": allows("cancelled"),
        "can_send": allows("published") and broadcast.typed is None and is_idle,
        "can_edit": allows("edited") and is_idle,
        "can_discard": allows("discarded"),
        "can_archive": allows("archived") and broadcast.archived_at is None,
        "can_withdraw": allows("withdrawn"),
        "is_sending": not is_idle,
        "is_past": broadcast.decision_reason in (DecisionReason.ENDED, DecisionReason.ACK_PASSED),
        "seconds_left": 0 if is_idle else _get_seconds_left(broadcast),
        "sent_by": broadcast.source and _describe_sender(broadcast),
    }


def _is_idle(broadcast: Broadcast) -> bool:
    """Whether it is not about to be sent. A broadcast in its undo delay is, unless it waits for a decision."""
    return not broadcast.is_held or broadcast.decision_reason is not None


def _get_seconds_left(broadcast: Broadcast) -> float:
    """Seconds until a delayed broadcast is sent."""
    return max(0.0, round((broadcast.scheduled_at - clock.now()).total_seconds(), 1))


def _render_broadcast(broadcast: Broadcast, error: str | None = None, *, reason: str = "") -> str:
    context = _build_context(broadcast)
    history_revisions = revisions.list_revisions(broadcast.id) if broadcast.revision > 1 and broadcast.seq else []
    return render_page(
        "console/broadcasts/detail.html",
        **context,
        timeline=_build_timeline(broadcast.id),
        history=history_revisions,
        error=error,
        reason=reason,
    )


def _build_timeline(broadcast_id: int) -> list[dict[str, Any]]:
    return [
        {
            "at": act.at,
            "who": act.actor_name,
            "what": _ACTION_PHRASES.get(act.action, act.action) + _describe_detail(act.detail),
        }
        for act in broadcasts.list_audit_entries(broadcast_id)
    ]


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
