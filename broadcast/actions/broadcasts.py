"""Publish, schedule, release, cancel and expire broadcasts."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import audit, notify, overdue_schedules, send_confirmation
from broadcast.actions.audiences import resolve_audience
from broadcast.actions.broadcast_rows import (
    check_draft_quota,
    check_may_send,
    check_may_write,
    fill_columns,
    freeze_audience,
    get_broadcast_for_update,
    new_draft_row,
    refuse_past_dates,
    refuse_unreviewed,
    set_audience,
)
from broadcast.base.cooperative import Yielder
from broadcast.base.errors import Conflict, Invalid
from broadcast.content import markdown
from broadcast.domain import confirmation, lifecycle
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.audience import Audience, UserAudience
from broadcast.domain.confirmation import ConfirmationInput
from broadcast.domain.events import ALL_SESSIONS, EventType
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Draft, Priority, is_single_line
from broadcast.domain.overdue_schedules import SCHEDULE_GRACE
from broadcast.domain.permissions import Permission
from broadcast.domain.visible_text import is_blank
from broadcast.store import audiences, broadcasts, log, users
from broadcast.store.models import Broadcast, IdempotencyKey
from broadcast.store.transactions import write_transaction


@dataclass(frozen=True, slots=True)
class PublishResult:
    """`is_new` is False when the idempotency key was already used for the same message."""

    id: int
    is_new: bool


def publish(
    draft: Draft,
    *,
    by: Actor,
    now: datetime,
    idempotency_key: str | None = None,
    undo_seconds: float = 0,
    is_test: bool = False,
    confirmed: ConfirmationInput | None = None,
) -> PublishResult:
    """Store a draft: live at once, scheduled, or kept as a draft, as the draft says.

    With `undo_seconds`, a broadcast that would go out at once is held for that long and can be withdrawn until then.
    With `is_test` it does not appear in the console's lists. `idempotency_key` makes retries safe: a second call with
    the same key and draft returns the first broadcast. Lets other greenlets run. Raises Forbidden, Invalid (unknown
    role or user, no recipients, a text that is not shown), ConfirmationRequired, Conflict (the key was used for another
    message), TemporarilyUnavailable.
    """
    check_may_write(draft, by)
    if idempotency_key is not None and (earlier := find_by_idempotency_key(by, idempotency_key, draft)):
        return earlier
    audience, html = resolve_audience(draft.target), markdown.render(draft.content)
    if not is_test:
        require_confirmation(draft, audience, confirmed, by=by, now=now)
    try:
        with write_transaction() as session:
            if draft.keep_as_draft:
                check_draft_quota(by)
            broadcast = _add_broadcast(session, draft, html, audience, by, now)
            if is_test:
                broadcast.archived_at = now
            save_idempotency_key(session, by, idempotency_key, draft, broadcast.id, now)
            dispatch_broadcast(session, broadcast, draft, audience, by=by, now=now, undo_seconds=undo_seconds)
            result = PublishResult(broadcast.id, is_new=True)
            has_due_time = broadcast.status == Status.SCHEDULED or broadcast.expires_at is not None
    except IntegrityError:
        if idempotency_key is not None and (earlier := find_by_idempotency_key(by, idempotency_key, draft)):
            return earlier
        raise
    notify.notify_workers()
    if has_due_time:
        notify.notify_schedulers()
    return result


def require_confirmation(
    draft: Draft, audience: Audience, confirmed: ConfirmationInput | None, *, by: Actor, now: datetime
) -> None:
    """Raise ConfirmationRequired unless `by` confirmed sending this draft as required. Lets other greenlets run."""
    proof = send_confirmation.verify_confirmation(confirmed, by=by, now=now)
    if proof.is_required and not draft.keep_as_draft:
        recipient_count = audiences.count(audience)
        send_confirmation.require_proof(proof, confirmation.get_requirement(draft, recipient_count), recipient_count)


def require_row_confirmation(broadcast: Broadcast, proof: send_confirmation.ConfirmationProof) -> None:
    """The same for a stored broadcast."""
    if proof.is_required:
        recipient_count = audiences.count(broadcasts.get_audience(broadcast))
        is_for_all = broadcast.audience_kind == "everyone"
        required = confirmation.get_requirement_for(
            Priority(broadcast.priority), recipient_count, is_for_everyone=is_for_all
        )
        send_confirmation.require_proof(proof, required, recipient_count)


def dispatch_broadcast(
    session: Session,
    broadcast: Broadcast,
    draft: Draft,
    audience: Audience,
    *,
    by: Actor,
    now: datetime,
    undo_seconds: float,
) -> None:
    """Move a filled row to the status its draft asks for: draft, scheduled, held, or live. Raises IllegalTransition."""
    is_later = draft.scheduled_at is not None and draft.scheduled_at > now
    action = "edited" if draft.keep_as_draft else "scheduled" if is_later else "held" if undo_seconds else "published"
    broadcast.status = lifecycle.transition(broadcast.status, action).value
    broadcast.is_held = action == "held"
    broadcast.planned_by_id, broadcast.decision_reason = by.user_id, None
    if action == "held":
        broadcast.scheduled_at = now + timedelta(seconds=undo_seconds)
    audit_action = "broadcast.drafted" if action == "edited" else f"broadcast.{action}"
    audit.record(session, by, audit_action, "broadcast", broadcast.id, now=now, title=draft.title)
    if action == "published":
        _publish_rows(session, [(broadcast, audience)], now)


def save_idempotency_key(
    session: Session, by: Actor, idempotency_key: str | None, draft: Draft, broadcast_id: int, now: datetime
) -> None:
    """Store what a key was used for; a concurrent request with the same key fails here, before it reserves a seq."""
    if idempotency_key is None:
        return
    fingerprint = _compute_fingerprint(draft)
    session.add(
        IdempotencyKey(
            user_id=by.user_id, key=idempotency_key, fingerprint=fingerprint, broadcast_id=broadcast_id, created_at=now
        )
    )
    session.flush()


def release(
    broadcast_id: int, *, by: Actor = SYSTEM, now: datetime, confirmed: ConfirmationInput | None = None
) -> None:
    """Send a draft or a scheduled broadcast now.

    Raises Forbidden, NotFound, IllegalTransition, ConfirmationRequired, Conflict (an unreviewed draft),
    TemporarilyUnavailable.
    """
    by.require(Permission.WRITE)
    proof = send_confirmation.verify_confirmation(confirmed, by=by, now=now)
    with write_transaction() as session:
        broadcast = get_broadcast_for_update(session, broadcast_id)
        lifecycle.transition(broadcast.status, "published")
        refuse_unreviewed(broadcast)
        check_may_send(broadcast, by)
        refuse_past_dates(broadcast, now)
        require_row_confirmation(broadcast, proof)
        _release_rows(session, [broadcast], by=by, now=now)
    notify.notify_workers()


def release_due(ids: Sequence[int], *, now: datetime, grace: timedelta = SCHEDULE_GRACE) -> list[int] | None:
    """Send those of these scheduled broadcasts that are due, in order and in one transaction; return the ids handled.

    One overdue by more than `grace`, or not allowed to go out automatically for another reason
    (`domain.overdue_schedules`), is not sent but waits for a decision. Rows that changed meanwhile or are locked are
    skipped. Returns None when another worker's scheduler is already running. Raises TemporarilyUnavailable; if one
    cannot be sent, its error is raised and none is sent.
    """
    with write_transaction() as session:
        due_broadcasts = broadcasts.lock_due(session, Status.SCHEDULED, ids, now)
        sendable = overdue_schedules.suspend_unsendable(session, due_broadcasts or [], now=now, grace=grace)
        _release_rows(session, sendable, by=SYSTEM, now=now)
        handled_ids = due_broadcasts and [broadcast.id for broadcast in due_broadcasts]
    notify.notify_workers()
    return handled_ids


def cancel(broadcast_id: int, *, reason: str, by: Actor, now: datetime) -> None:
    """Recall a broadcast; every open page removes it.

    Raises Forbidden, Invalid, NotFound, IllegalTransition, TemporarilyUnavailable.
    """
    by.require(Permission.WRITE)
    reason = " ".join(reason.split())
    if not 0 < len(reason) <= 500 or not is_single_line(reason) or is_blank(reason):
        raise Invalid({"reason": "Give a reason for the recall, in at most 500 characters."})
    with write_transaction() as session:
        broadcast = get_broadcast_for_update(session, broadcast_id)
        broadcast.cancel_reason = reason
        audit.record(session, by, "broadcast.cancelled", "broadcast", broadcast.id, now=now, reason=reason)
        _end_rows(session, [broadcast], "cancelled", now)
    notify.notify_workers()


def expire_due(ids: Sequence[int], *, now: datetime) -> list[int] | None:
    """Expire those of these broadcasts that are past their end; like `release_due`."""
    with write_transaction() as session:
        expired = broadcasts.lock_due(session, Status.ACTIVE, ids, now)
        for broadcast in expired or []:
            audit.record(session, SYSTEM, "broadcast.expired", "broadcast", broadcast.id, now=now)
        _end_rows(session, expired or [], "expired", now)
        expired_ids = expired and [broadcast.id for broadcast in expired]
    notify.notify_workers()
    return expired_ids


def _add_broadcast(
    session: Session, draft: Draft, html: str, audience: Audience, by: Actor, now: datetime
) -> Broadcast:
    broadcast = new_draft_row(by, now)
    fill_columns(broadcast, draft, now, html=html)
    set_audience(session, broadcast, audience, is_snapshot=draft.target.snapshot, may_be_empty=draft.keep_as_draft)
    return broadcast


def _release_rows(session: Session, rows: Sequence[Broadcast], *, by: Actor, now: datetime) -> None:
    """Send locked rows."""
    to_publish = []
    for broadcast in rows:
        broadcast.status = lifecycle.transition(broadcast.status, "published")
        broadcast.decision_reason = None
        refuse_unreviewed(broadcast)
        if broadcast.is_held:
            broadcast.is_held, broadcast.scheduled_at = False, None
        audit.record(session, by, "broadcast.published", "broadcast", broadcast.id, now=now)
        to_publish.append((broadcast, broadcasts.get_audience(broadcast)))
    count_cached, yielder = cache(users.count), Yielder()  # many share an audience
    with session.no_autoflush:
        for broadcast, audience in to_publish:
            broadcast.audience_count = count_cached(audience)  # membership may have changed since it was scheduled
            yielder.maybe_yield()
    _publish_rows(session, to_publish, now)


def _publish_rows(session: Session, to_publish: Sequence[tuple[Broadcast, Audience]], now: datetime) -> None:
    """Number the broadcasts and append their MESSAGE events. Locks the log until the commit, so it runs last."""
    entries: list[log.NewEvent] = []
    broadcast_by_index: dict[int, Broadcast] = {}  # by the index of the broadcast's MESSAGE in the entries
    yielder = Yielder()
    with session.no_autoflush:  # each row is updated once, with its seq
        for broadcast, audience in to_publish:
            audience = freeze_audience(session, broadcast, audience)
            broadcast.published_at = broadcast.updated_at = now
            broadcast_by_index[len(entries)] = broadcast
            entries += [
                build_message_event(broadcast, audience),
                *_end_recipient_sessions(session, broadcast, audience, now),
            ]
            yielder.maybe_yield()
        if entries:
            first_cursor = log.reserve_seqs(session, len(entries))
            for index, broadcast in broadcast_by_index.items():
                broadcast.seq = first_cursor.seq + index
            log.append(session, entries, at=now, first_cursor=first_cursor)


def _end_recipient_sessions(
    session: Session, broadcast: Broadcast, audience: Audience, now: datetime
) -> list[log.NewEvent]:
    """End the sessions of the selected users, if the broadcast signs them out; return the event to append after it."""
    if not broadcast.close_sessions or not isinstance(audience, UserAudience):
        return []
    users.end_sessions(session, sorted(audience.ids), at=now)
    return [log.NewEvent(EventType.SESSION_ENDED, broadcast.id, audience, {"session": ALL_SESSIONS})]


def build_message_event(broadcast: Broadcast, audience: Audience) -> log.NewEvent:
    """The event that publishes a broadcast to its audience."""
    return log.NewEvent(EventType.MESSAGE, broadcast.id, audience, broadcast.to_card().to_payload())


def build_update_event(broadcast: Broadcast, audience: Audience, *, notify_again: bool) -> log.NewEvent:
    """The event with a new text of a live broadcast; with `notify_again` it alerts users who have read it too."""
    payload = broadcast.to_card().to_payload() | {"seq": broadcast.seq, "again": notify_again}
    return log.NewEvent(EventType.MESSAGE_UPDATED, broadcast.id, audience, payload)


def build_removal_event(broadcast: Broadcast, audience: Audience, action: str) -> log.NewEvent:
    """The event that removes a broadcast; `action` is "cancelled" or "expired"."""
    payload = {"id": broadcast.id, "reason": action.upper()}
    return log.NewEvent(EventType.MESSAGE_REMOVED, broadcast.id, audience, payload)


def _end_rows(session: Session, rows: Sequence[Broadcast], action: str, now: datetime) -> None:
    removal_entries = [build_removal_event(row, broadcasts.get_audience(row), action) for row in rows if row.is_live]
    for row in rows:
        row.status = lifecycle.transition(row.status, action).value
        row.ended_at = row.updated_at = now
    session.flush()
    log.append(session, removal_entries, at=now)


def find_by_idempotency_key(by: Actor, idempotency_key: str, draft: Draft) -> PublishResult | None:
    """The result of an earlier request with this key, or None. Raises Conflict when that was another message."""
    row = broadcasts.get_idempotency_key(by.user_id, idempotency_key)
    if row is None:
        return None
    if row.fingerprint != _compute_fingerprint(draft):
        raise Conflict("This Idempotency-Key was used for another message. Use a new key for a new message.")
    return PublishResult(row.broadcast_id, is_new=False)


def _compute_fingerprint(draft: Draft) -> str:
    return hashlib.sha256(json.dumps(asdict(draft), default=str, sort_keys=True).encode()).hexdigest()
