"""Edit drafts, scheduled broadcasts and live broadcasts.

Every edit names the version it was made from and raises VersionConflict when that is no longer the newest, so that two
editors, or an edit and the scheduler, never overwrite each other silently.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from broadcast.actions import broadcast_rows, notify
from broadcast.actions.audiences import resolve_audience
from broadcast.actions.broadcast_rows import PreparedMessage, prepare_message
from broadcast.actions.broadcasts import build_update_event, lock_sendable
from broadcast.actions.send_confirmation import ConfirmationProof, require_row_proof, verify_confirmation
from broadcast.base.errors import Invalid, VersionConflict
from broadcast.content import markdown
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.audience import Audience
from broadcast.domain.confirmation import ConfirmationInput, needs_reconfirmation
from broadcast.domain.lifecycle import Status, transition
from broadcast.domain.message import Draft, Priority, parse_content, parse_draft
from broadcast.domain.permissions import Permission
from broadcast.store import acknowledged_revisions, audiences, audit, broadcasts, log, receipts
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction

_CONTENT_FIELDS = ("title", "content", "priority", "category", "actions", "requiresAck", "ackDueAt", "expiresAt")
_UNSENT_FIELDS = ("scheduledAt", "escalation")  # besides the audience: fixed once it is sent
_AUDIENCE_FIELDS = ("targetType", "targetIds", "targetMatch", "exceptRoles", "exceptIds", "snapshot", "closeSessions")
_COPIED_COLUMNS = (
    "title",
    "content",
    "content_html",
    "priority",
    "category",
    "actions",
    "requires_ack",
    "escalation",
    "typed",
)


class SavedDraft(NamedTuple):
    id: int
    version: str


def save_draft(
    typed: Mapping[str, Any],
    draft: Draft | None,
    *,
    broadcast_id: int | None,
    version: str | None,
    by: Actor,
    now: datetime,
) -> SavedDraft:
    """Store a form as typed, complete or not, in a new draft or in its existing one.

    `draft` is the parsed form, or None while it is invalid: the draft then reaches nobody, as does one whose text is
    not shown. A series of autosaves by one author makes one audit row. Lets other greenlets run. Raises NotFound,
    Invalid (a new draft over the user's limit), VersionConflict, IllegalTransition.
    """
    by.require(Permission.WRITE)
    try:
        message = draft and prepare_message(draft)
    except Invalid:
        message = None
    with write_transaction() as session:
        if broadcast_id is None:
            broadcast_rows.check_draft_quota(by)
            broadcast = Broadcast(**broadcast_rows.build_draft_columns(by, now))
            session.add(broadcast)
            session.flush()
            audit.record(session, by, "broadcast.drafted", "broadcast", broadcast.id, now=now)
        else:
            broadcast = broadcast_rows.get_broadcast_for_update(session, broadcast_id, version=version)
            transition(broadcast.status, "saved")
            broadcast.revision += 1
            last_entries = [(row.actor_id, row.action) for row in broadcasts.list_audit_entries(broadcast.id)[-1:]]
            if last_entries not in ([(by.user_id, "broadcast.drafted")], [(by.user_id, "broadcast.saved")]):
                audit.record(session, by, "broadcast.saved", "broadcast", broadcast.id, now=now)
        broadcast.typed = dict(typed)
        if message:
            broadcast_rows.write_message(session, broadcast, message, now, may_be_empty=True)
        else:
            broadcast.title = " ".join(str(typed.get("title", "")).split())[:200]
            broadcast.updated_at = now
            broadcast_rows.set_empty_audience(session, broadcast)
        return SavedDraft(broadcast.id, broadcast.version)


def duplicate(broadcast_id: int, *, by: Actor, now: datetime) -> SavedDraft:
    """Create a draft with the text and the audience of a broadcast, without its times. Raises NotFound, Invalid."""
    by.require(Permission.WRITE)
    with write_transaction() as session:
        broadcast_rows.check_draft_quota(by)
        original = broadcast_rows.get_broadcast_for_update(session, broadcast_id)
        copy = Broadcast(**broadcast_rows.build_draft_columns(by, now))
        for name in _COPIED_COLUMNS:
            setattr(copy, name, getattr(original, name))
        session.add(copy)
        session.flush()
        try:
            audience = audiences.get_audience(original)
        except ValueError:  # a draft without an audience yet
            audience = None
        if audience:
            count, is_snapshot = audiences.count(audience), original.is_snapshot
            broadcast_rows.set_audience(session, copy, audience, count, is_snapshot, may_be_empty=True)
        audit.record(session, by, "broadcast.drafted", "broadcast", copy.id, now=now, copy_of=broadcast_id)
        return SavedDraft(copy.id, copy.version)


def send_delayed(
    broadcast_id: int, *, by: Actor, now: datetime, until: datetime, confirmed: ConfirmationInput | None = None
) -> None:
    """Hold a broadcast until `until`, seconds ahead, when it is sent unless it was withdrawn. Raises like `release`."""
    by.require(Permission.WRITE)
    proof = verify_confirmation(confirmed, by=by, now=now)
    with write_transaction() as session:
        broadcast, _ = lock_sendable(session, broadcast_id, "held", proof, by=by, now=now)
        broadcast.status = transition(broadcast.status, "held").value
        broadcast.is_held, broadcast.scheduled_at, broadcast.updated_at = True, until, now
        broadcast.planned_by_id, broadcast.decision_reason = by.user_id, None
        audit.record(session, by, "broadcast.held", "broadcast", broadcast.id, now=now)
    notify.notify_schedulers()


def withdraw_broadcast(broadcast_id: int, *, by: Actor, now: datetime) -> None:
    """Turn a held or scheduled broadcast back into a draft. Raises NotFound, IllegalTransition (it has gone out)."""
    by.require(Permission.WRITE)
    with write_transaction() as session:
        broadcast = broadcast_rows.get_broadcast_for_update(session, broadcast_id)
        broadcast.status = transition(broadcast.status, "withdrawn").value
        if broadcast.is_held:
            broadcast.is_held, broadcast.scheduled_at = False, None
        broadcast.updated_at, broadcast.decision_reason = now, None
        audit.record(session, by, "broadcast.withdrawn", "broadcast", broadcast.id, now=now)


def edit(
    broadcast_id: int,
    changes: Mapping[str, Any],
    *,
    version: str | None,
    by: Actor,
    now: datetime,
    notify_again: bool = False,
    acknowledge_again: bool = False,
    confirmed: ConfirmationInput | None = None,
) -> str:
    """Change the given public fields of a draft, a scheduled broadcast or a live broadcast; return the new version.

    A live broadcast changes on every open page; with `notify_again` it becomes unread again for users who had read it.
    Without `acknowledge_again` the edit is a correction and acknowledgements stand; with it everyone is asked again,
    which also shows it again. The audience and the start of a live broadcast cannot change. `version` None means the
    current version. Lets other greenlets run. Raises NotFound, Invalid, ConfirmationRequired, VersionConflict,
    IllegalTransition.
    """
    by.require(Permission.WRITE)
    rendered_text = _render_new_text(broadcast_id, changes)
    proof = verify_confirmation(confirmed, by=by, now=now)
    is_shown_again = notify_again or acknowledge_again
    with write_transaction() as session:
        broadcast = broadcast_rows.get_broadcast_for_update(session, broadcast_id, version=version)
        transition(broadcast.status, "edited")
        old_fields = to_public_fields(broadcast)
        draft = _apply_changes(broadcast, old_fields, changes, now, notify_again, acknowledge_again)
        broadcast_rows.check_may_send(draft, by)
        html = _select_html(draft.content, broadcast, rendered_text)
        audience = _store_edit(session, broadcast, draft, html, proof, by=by, now=now, is_shown_again=is_shown_again)
        new_fields = to_public_fields(broadcast)
        changed_fields = sorted(name for name in new_fields if new_fields[name] != old_fields[name])
        if not changed_fields and not is_shown_again:
            return broadcast.version
        broadcast.revision += 1
        broadcast.typed = None
        detail = {"fields": changed_fields, "revision": broadcast.revision}
        if is_shown_again:
            detail["again"] = True
        if acknowledge_again:
            broadcast.ack_revision = broadcast.revision
            detail["acknowledgeAgain"] = True
        audit.record(session, by, "broadcast.edited", "broadcast", broadcast.id, now=now, **detail)
        if broadcast.is_live:
            _append_update_event(session, broadcast, audience, now, is_shown_again)
        version = broadcast.version
    notify.notify_workers()
    notify.notify_schedulers()
    return version


def _store_edit(
    session: Session,
    broadcast: Broadcast,
    draft: Draft,
    html: str,
    proof: ConfirmationProof,
    *,
    by: Actor,
    now: datetime,
    is_shown_again: bool,
) -> Audience:
    """Write the edited draft into its row; return its audience. Raises Invalid, ConfirmationRequired."""
    if broadcast.is_live:
        audience = audiences.get_audience(broadcast)
        if broadcast.requires_ack:  # a user may be acknowledging the text on screen
            acknowledged_revisions.save_text(session, broadcast.to_card())
    else:
        audience = resolve_audience(draft.target)
    old, new = Priority(broadcast.priority), draft.priority
    is_riskier = needs_reconfirmation(broadcast.status, old, new, is_shown_again=is_shown_again)
    needs_proof = proof.is_required and is_riskier
    recipient_count = audiences.count(audience) if needs_proof or not broadcast.is_live else None
    if broadcast.is_live:
        broadcast_rows.fill_columns(broadcast, draft, now, html=html)
    else:
        message = PreparedMessage(draft, audience, recipient_count, html)
        broadcast_rows.write_message(session, broadcast, message, now, may_be_empty=broadcast.status == Status.DRAFT)
    if broadcast.status == Status.SCHEDULED:
        broadcast.planned_by_id, broadcast.decision_reason = by.user_id, None
    if needs_proof:
        require_row_proof(proof, broadcast, recipient_count)
    return audience


def _render_new_text(broadcast_id: int, changes: Mapping[str, Any]) -> tuple[str, str] | None:
    """The new text and its HTML; None when the text is unchanged or invalid. Raises Invalid."""
    if changes.get("content") is None:
        return None
    try:
        content = parse_content(changes["content"])
    except ValueError:
        return None  # `parse_draft` reports it with all other errors
    stored = broadcasts.get(broadcast_id)
    if stored is None or stored.content == content:  # shown already, whatever the limits were then
        return None
    return content, markdown.render(content)


def _select_html(content: str, broadcast: Broadcast, rendered_text: tuple[str, str] | None) -> str:
    if rendered_text is not None and rendered_text[0] == content:
        return rendered_text[1]
    if broadcast.content != content:  # the text when the edit began
        raise VersionConflict(broadcast.version)
    return broadcast.content_html


def _apply_changes(
    broadcast: Broadcast,
    old_fields: dict[str, Any],
    changes: Mapping[str, Any],
    now: datetime,
    notify_again: bool,
    acknowledge_again: bool,
) -> Draft:
    """The draft after the changes. Raises Invalid."""
    editable_fields = _CONTENT_FIELDS if broadcast.is_live else (*_CONTENT_FIELDS, *_AUDIENCE_FIELDS, *_UNSENT_FIELDS)
    problems = {name: _explain_refusal(name, broadcast) for name in changes if name not in editable_fields}
    if notify_again and not broadcast.is_live:
        problems["notifyAgain"] = "Only a live broadcast can be shown again."
    if acknowledge_again and not broadcast.is_live:
        problems["acknowledgeAgain"] = "Only a live broadcast can ask for acknowledgement again."
    if broadcast.status == Status.SCHEDULED and changes.get("scheduledAt", "") is None:
        problems["scheduledAt"] = "Choose when to send it, or send it now."
    new_fields = old_fields | dict(changes)
    if broadcast.is_live:  # fixed once sent, and validated then
        new_fields = {"targetType": "ALL"} | {name: new_fields[name] for name in _CONTENT_FIELDS}
        if new_fields["ackDueAt"] == old_fields["ackDueAt"] and new_fields["requiresAck"]:
            del new_fields["ackDueAt"]
    elif broadcast.status == Status.DRAFT:
        new_fields["draft"] = True
    try:
        draft = parse_draft(new_fields, now=now)
    except Invalid as invalid:
        raise Invalid(invalid.fields | problems) from None
    if problems:
        raise Invalid(problems)
    if acknowledge_again and not draft.requires_ack:
        raise Invalid({"acknowledgeAgain": "This message does not ask for an acknowledgement."})
    if not broadcast.is_live:
        return draft
    ack_due_at = draft.ack_due_at if "ackDueAt" in new_fields else broadcast.ack_due_at
    return replace(draft, scheduled_at=broadcast.scheduled_at, ack_due_at=ack_due_at)


def _explain_refusal(name: str, broadcast: Broadcast) -> str:
    if broadcast.is_live and name in (*_AUDIENCE_FIELDS, *_UNSENT_FIELDS):
        return "The audience, send time and escalation of a live broadcast cannot change. Recall it and send a new one."
    return "There is no such field, or it cannot be changed."


def _append_update_event(
    session: Session, broadcast: Broadcast, audience: Audience, now: datetime, notify_again: bool
) -> None:
    broadcast.edited_at = now
    session.flush()
    first_cursor = log.reserve_seqs(session, 1)
    if notify_again:  # newest in every inbox, and unread: above every watermark
        receipts.save_seen_by_watermark(session, broadcast)
        broadcast.seq, broadcast.renewed_at = first_cursor.seq, now
    entry = build_update_event(broadcast, audience, notify_again=notify_again)
    log.append(session, [entry], at=now, first_cursor=first_cursor)


def to_public_fields(broadcast: Broadcast) -> dict[str, Any]:
    """A stored broadcast as the public fields that `parse_draft` accepts."""
    target_ids = (
        audiences.list_selected_user_ids(broadcast) if broadcast.audience_kind == "users" else broadcast.role_names
    )
    return {
        "title": broadcast.title,
        "content": broadcast.content,
        "priority": broadcast.priority,
        "category": broadcast.category,
        "actions": broadcast.actions,
        "requiresAck": broadcast.requires_ack,
        "ackDueAt": clock.to_rfc3339(broadcast.ack_due_at),
        "scheduledAt": clock.to_rfc3339(broadcast.scheduled_at),
        "expiresAt": clock.to_rfc3339(broadcast.expires_at),
        "targetType": broadcast.target_type,
        "targetIds": target_ids,
        "targetMatch": "ALL" if broadcast.match_all else "ANY",
        "exceptRoles": broadcast.except_role_names,
        "exceptIds": audiences.list_excluded_user_ids(broadcast),
        "snapshot": broadcast.is_snapshot,
        "escalation": broadcast.escalation,
        "closeSessions": broadcast.close_sessions,
    }
