"""Publish, schedule, release, cancel, expire and archive broadcasts."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import broadcast_rows, notify, overdue_schedules
from broadcast.actions.broadcast_rows import PreparedMessage, prepare_message
from broadcast.actions.escalation_policies import fix_plans
from broadcast.actions.send_confirmation import ConfirmationProof, require_proof, require_row_proof, verify_confirmation
from broadcast.base.cooperative import Yielder
from broadcast.base.errors import Conflict, Invalid
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.audience import Audience, UserAudience
from broadcast.domain.confirmation import ConfirmationInput, get_requirement
from broadcast.domain.events import ALL_SESSIONS, EventType
from broadcast.domain.lifecycle import Status, transition
from broadcast.domain.message import Draft, is_visible_line
from broadcast.domain.overdue_schedules import SCHEDULE_GRACE, get_expiry_reason
from broadcast.domain.permissions import Permission
from broadcast.store import audiences, audit, broadcasts, corrections, log, users
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
    broadcast_id: int | None = None,
    version: str | None = None,
    idempotency_key: str | None = None,
    undo_seconds: float = 0,
    is_test: bool = False,
    confirmed: ConfirmationInput | None = None,
) -> PublishResult:
    """Store a message: live at once, scheduled, or kept as a draft, as it says.

    With `broadcast_id` it replaces that draft or scheduled broadcast, which must be at `version` (None: any). With
    `undo_seconds`, a broadcast that would go out at once is held for that long and can be withdrawn until then. With
    `is_test` it does not appear in the console's lists. `idempotency_key` makes retries safe: a second call with the
    same key and draft returns the first broadcast. Lets other greenlets run. Raises NotFound, Invalid (unknown role or
    user, no recipients, a text that is not shown), ConfirmationRequired, VersionConflict, IllegalTransition, Conflict
    (the key was used for another message).
    """
    broadcast_rows.check_may_send(draft, by)
    if earlier := _find_by_idempotency_key(by, idempotency_key, draft):
        return earlier
    message = prepare_message(draft)
    if not (is_test or draft.keep_as_draft):
        proof = verify_confirmation(confirmed, by=by, now=now)
        required = get_requirement(draft, message.recipient_count)
        require_proof(proof, required, message.recipient_count)
    try:
        with write_transaction() as session:
            broadcast = _store_message(session, message, broadcast_id, version, by, now)
            if is_test:
                broadcast.archived_at = now
            _save_idempotency_key(session, by, idempotency_key, draft, broadcast.id, now)
            _dispatch(session, broadcast, message, by=by, now=now, undo_seconds=undo_seconds)
            result = PublishResult(broadcast.id, is_new=True)
            has_due_time = broadcast.status == Status.SCHEDULED or broadcast.expires_at is not None
    except IntegrityError:
        if earlier := _find_by_idempotency_key(by, idempotency_key, draft):
            return earlier
        raise
    notify.notify_workers()
    if has_due_time:
        notify.notify_schedulers()
    return result


def _store_message(
    session: Session, message: PreparedMessage, broadcast_id: int | None, version: str | None, by: Actor, now: datetime
) -> Broadcast:
    """Write a message into a new row, or in the place of a stored draft or scheduled broadcast."""
    draft = message.draft
    if broadcast_id is None:
        if draft.keep_as_draft:
            broadcast_rows.check_draft_quota(by)
        broadcast = Broadcast(**broadcast_rows.build_draft_columns(by, now))
    else:
        broadcast = broadcast_rows.get_broadcast_for_update(session, broadcast_id, version=version)
        transition(broadcast.status, "held")  # before anything is changed
        broadcast.typed = None
        broadcast.revision += 1
    broadcast_rows.write_message(session, broadcast, message, now, may_be_empty=draft.keep_as_draft)
    return broadcast


def _dispatch(
    session: Session, broadcast: Broadcast, message: PreparedMessage, *, by: Actor, now: datetime, undo_seconds: float
) -> None:
    """Move a filled row to the status its draft asks for: draft, scheduled, held, or live. Raises IllegalTransition."""
    draft = message.draft
    is_later = draft.scheduled_at is not None and draft.scheduled_at > now
    action = "edited" if draft.keep_as_draft else "scheduled" if is_later else "held" if undo_seconds else "published"
    broadcast.status = transition(broadcast.status, action).value
    broadcast.is_held = action == "held"
    broadcast.planned_by_id, broadcast.decision_reason = by.user_id, None
    if action == "held":
        broadcast.scheduled_at = now + timedelta(seconds=undo_seconds)
    audit_action = "broadcast.drafted" if action == "edited" else f"broadcast.{action}"
    audit.record(session, by, audit_action, "broadcast", broadcast.id, now=now, title=draft.title)
    if action == "published":
        publish_rows(session, [(broadcast, message.audience)], now)


def _save_idempotency_key(
    session: Session, by: Actor, idempotency_key: str | None, draft: Draft, broadcast_id: int, now: datetime
) -> None:
    """Store what a key was used for; a concurrent request with the same key fails here, before it reserves a seq."""
    if idempotency_key is None:
        return
    values = {"fingerprint": _compute_fingerprint(draft), "broadcast_id": broadcast_id, "created_at": now}
    session.add(IdempotencyKey(user_id=by.user_id, key=idempotency_key, **values))
    session.flush()


def _find_by_idempotency_key(by: Actor, idempotency_key: str | None, draft: Draft) -> PublishResult | None:
    """The result of an earlier request with this key, or None. Raises Conflict when that was another message."""
    row = broadcasts.get_idempotency_key(by.user_id, idempotency_key) if idempotency_key is not None else None
    if row is None:
        return None
    if row.fingerprint != _compute_fingerprint(draft):
        raise Conflict("This Idempotency-Key was used for another message. Use a new key for a new message.")
    return PublishResult(row.broadcast_id, is_new=False)


def _compute_fingerprint(draft: Draft) -> str:
    return hashlib.sha256(json.dumps(asdict(draft), default=str, sort_keys=True).encode()).hexdigest()


def release(
    broadcast_id: int, *, by: Actor = SYSTEM, now: datetime, confirmed: ConfirmationInput | None = None
) -> None:
    """Send a stored one now. Raises NotFound, IllegalTransition, ConfirmationRequired, Conflict (unreviewed draft)."""
    by.require(Permission.WRITE)
    proof = verify_confirmation(confirmed, by=by, now=now)
    with write_transaction() as session:
        broadcast_with_audience = lock_sendable(session, broadcast_id, "published", proof, by=by, now=now)
        _release_rows(session, [broadcast_with_audience], by=by, now=now)
    notify.notify_workers()


def lock_sendable(
    session: Session, broadcast_id: int, action: str, proof: ConfirmationProof, *, by: Actor, now: datetime
) -> tuple[Broadcast, Audience]:
    """Lock a stored broadcast that `by` may send now ("published" or "held"), counted anew. Raises like `release`."""
    broadcast = broadcast_rows.get_broadcast_for_update(session, broadcast_id)
    transition(broadcast.status, action)
    if broadcast.typed is not None:  # stored as typed: nobody has confirmed what it will say
        raise Conflict("This draft has not been reviewed. Open it, review it and send it from there.")
    broadcast_rows.check_may_send(broadcast, by)
    if reason := get_expiry_reason(ends_at=broadcast.expires_at, ack_due_at=broadcast.ack_due_at, now=now):
        raise Conflict(f"{reason.sentence} Edit it and choose another date first.")
    [broadcast_with_audience] = _count_recipients(session, [broadcast])
    require_row_proof(proof, broadcast, broadcast.audience_count)
    return broadcast_with_audience


def release_due(ids: Sequence[int], *, now: datetime, grace: timedelta = SCHEDULE_GRACE) -> list[int] | None:
    """Send those of these scheduled broadcasts that are due, in order and in one transaction; return the ids handled.

    One that may not go out automatically (`domain.overdue_schedules`) waits for a decision. Rows that changed meanwhile
    or are locked are skipped. None when another worker's scheduler is running. If one cannot be sent, none is.
    """
    with write_transaction() as session:
        due_broadcasts = broadcasts.lock_due(session, Status.SCHEDULED, ids, now)
        sendable = overdue_schedules.suspend_unsendable(session, due_broadcasts or [], now=now, grace=grace)
        _release_rows(session, _count_recipients(session, sendable), by=SYSTEM, now=now)
        handled_ids = due_broadcasts and [broadcast.id for broadcast in due_broadcasts]
    notify.notify_workers()
    return handled_ids


def cancel(broadcast_id: int, *, reason: str, by: Actor, now: datetime) -> None:
    """Recall a broadcast; every open page removes it. Raises Invalid, NotFound, IllegalTransition."""
    by.require(Permission.WRITE)
    reason = " ".join(reason.split())
    if not is_visible_line(reason, 500):
        raise Invalid({"reason": "Give a reason for the recall, in at most 500 characters."})
    with write_transaction() as session:
        broadcast = broadcast_rows.get_broadcast_for_update(session, broadcast_id)
        broadcast.cancel_reason = reason
        audit.record(session, by, "broadcast.cancelled", "broadcast", broadcast.id, now=now, reason=reason)
        _end_rows(session, [broadcast], "cancelled", now)
        corrections.begin(session, [broadcast.id], at=now)
    notify.notify_workers()


def discard_draft(broadcast_id: int, *, by: Actor, now: datetime) -> None:
    """Delete a draft: it disappears from every list but the archive. Raises NotFound, IllegalTransition."""
    by.require(Permission.WRITE)
    with write_transaction() as session:
        broadcast = broadcast_rows.get_broadcast_for_update(session, broadcast_id)
        broadcast.status = transition(broadcast.status, "discarded").value
        broadcast.ended_at = broadcast.archived_at = broadcast.updated_at = now
        audit.record(session, by, "broadcast.discarded", "broadcast", broadcast.id, now=now)


def archive(broadcast_id: int, *, by: Actor, now: datetime) -> None:
    """Move an ended broadcast to the archive; idempotent. Raises NotFound, IllegalTransition."""
    by.require(Permission.WRITE)
    with write_transaction() as session:
        broadcast = broadcast_rows.get_broadcast_for_update(session, broadcast_id)
        transition(broadcast.status, "archived")
        if broadcast.archived_at is None:
            broadcast.archived_at = now
            audit.record(session, by, "broadcast.archived", "broadcast", broadcast.id, now=now)


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


def _count_recipients(session: Session, rows: Sequence[Broadcast]) -> list[tuple[Broadcast, Audience]]:
    """Locked rows with their audiences, counted anew unless held: membership may have changed meanwhile."""
    count_cached, yielder, counted = cache(audiences.count), Yielder(), []  # many share an audience
    with session.no_autoflush:
        for broadcast in rows:
            audience = audiences.get_audience(broadcast)
            if not broadcast.is_held:
                broadcast.audience_count = count_cached(audience)
            counted.append((broadcast, audience))
            yielder.maybe_yield()
    return counted


def _release_rows(
    session: Session, to_publish: Sequence[tuple[Broadcast, Audience]], *, by: Actor, now: datetime
) -> None:
    """Send locked rows."""
    for broadcast, _ in to_publish:
        broadcast.status = transition(broadcast.status, "published")
        broadcast.decision_reason = None
        if broadcast.is_held:
            broadcast.is_held, broadcast.scheduled_at = False, None
        audit.record(session, by, "broadcast.published", "broadcast", broadcast.id, now=now)
    publish_rows(session, to_publish, now)


def publish_rows(session: Session, to_publish: Sequence[tuple[Broadcast, Audience]], now: datetime) -> None:
    """Number the broadcasts and append their MESSAGE events. Locks the log until the commit, so it runs last."""
    entries: list[log.NewEvent] = []
    broadcast_by_index: dict[int, Broadcast] = {}  # by the index of the broadcast's MESSAGE in the entries
    yielder = Yielder()
    with session.no_autoflush:  # each row is updated once, with its seq
        fix_plans(broadcast for broadcast, _ in to_publish)
        for broadcast, audience in to_publish:
            audience = broadcast_rows.freeze_audience(session, broadcast, audience)
            broadcast.published_at = broadcast.updated_at = now
            broadcast_by_index[len(entries)] = broadcast
            entries.append(build_message_event(broadcast, audience))
            if broadcast.close_sessions and isinstance(audience, UserAudience):
                users.end_sessions(session, sorted(audience.ids), at=now)
                detail = {"session": ALL_SESSIONS}
                entries.append(log.NewEvent(EventType.SESSION_ENDED, broadcast.id, audience, detail))
            yielder.maybe_yield()
        if entries:
            first_cursor = log.reserve_seqs(session, len(entries))
            for index, broadcast in broadcast_by_index.items():
                broadcast.seq = first_cursor.seq + index
            log.append(session, entries, at=now, first_cursor=first_cursor)


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
    removal_entries = [build_removal_event(row, audiences.get_audience(row), action) for row in rows if row.is_live]
    for row in rows:
        row.status = transition(row.status, action).value
        row.ended_at = row.updated_at = now
    session.flush()
    log.append(session, removal_entries, at=now)
