"""Hold scheduled broadcasts until a user decides: single ones when they fall due, many after an outage, a restore, or the
loss of committed events.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import notify
from broadcast.domain.actor import SYSTEM
from broadcast.domain.overdue_schedules import SCHEDULE_GRACE, DecisionReason, get_expiry_reason
from broadcast.domain.permissions import Permission
from broadcast.store import audit, broadcasts, log, users
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction

_log = structlog.get_logger(__name__)
_RUN_RECORD_INTERVAL = timedelta(seconds=15)


def record_scheduler_run(*, now: datetime, grace: timedelta = SCHEDULE_GRACE) -> None:
    """Record that the scheduler runs. If none ran for longer than `grace`, what fell due meanwhile awaits a decision."""
    last_run_at = broadcasts.get_last_scheduler_run()
    if last_run_at is not None and last_run_at <= now < last_run_at + _RUN_RECORD_INTERVAL:
        return
    try:
        with write_transaction() as session:
            is_first = broadcasts.record_scheduler_run(session, previous_run=last_run_at, now=now)
            had_outage = is_first and last_run_at is not None and now - last_run_at > grace
            suspended = had_outage and _suspend(session, DecisionReason.STANDSTILL, now, due_until=now)
    except IntegrityError:
        return  # two workers start for the first time at once
    if suspended:
        _log.warning("scheduler.stood_still", since=last_run_at.isoformat(), plans=suspended)


def start_epoch_after_loss(lost_epoch: str, *, now: datetime) -> bool:
    """Start a new epoch as committed events of `lost_epoch` are gone, unless another worker did; return whether.

    Every earlier cursor is answered with RESET. Scheduled broadcasts wait: they may have been sent in the lost part.
    """
    with write_transaction() as session:
        new_epoch = log.start_epoch(session, expected_epoch=lost_epoch)
        if new_epoch:
            suspended_count = suspend_all(session, now=now)
            detail = {"lost": lost_epoch, "epoch": new_epoch, "plans": suspended_count}
            audit.record(session, SYSTEM, "log.epoch", "log", None, now=now, **detail)
    notify.notify_workers()
    return new_epoch is not None


def suspend_all(session: Session, *, now: datetime) -> int:
    """After a restore, suspend every scheduled broadcast, as it may have been moved and sent; return how many."""
    return _suspend(session, DecisionReason.RESTORED, now)


def _suspend(session: Session, reason: DecisionReason, now: datetime, *, due_until: datetime | None = None) -> int:
    suspended_ids = broadcasts.require_decision(session, reason, due_until=due_until)
    for broadcast_id in suspended_ids:
        _record_audit(session, broadcast_id, reason, now)
    return len(suspended_ids)


def suspend_unsendable(
    session: Session, due_broadcasts: Sequence[Broadcast], *, now: datetime, grace: timedelta
) -> list[Broadcast]:
    """Suspend those of these locked broadcasts that may not go out automatically; return the others."""
    planner_ids = {row.planned_by_id for row in due_broadcasts if row.planned_by_id is not None}
    permissions_by_user = users.get_permissions(planner_ids)
    sendable = []
    for broadcast in due_broadcasts:
        reason = get_expiry_reason(ends_at=broadcast.expires_at, ack_due_at=broadcast.ack_due_at, now=now)
        if reason is None and now - broadcast.scheduled_at > grace:
            reason = DecisionReason.OVERDUE
        if reason is None and not _is_planner_allowed(broadcast, permissions_by_user):
            reason = DecisionReason.PLANNER
        if reason is None:
            sendable.append(broadcast)
            continue
        broadcast.decision_reason = reason.value
        _record_audit(session, broadcast.id, reason, now)
        _log.warning("scheduler.plan_waits", broadcast=broadcast.id, reason=reason.value)
    return sendable


def _is_planner_allowed(broadcast: Broadcast, permissions_by_user: dict[int, frozenset[Permission]]) -> bool:
    """Whether the user who scheduled it may still send it. A source's broadcast uses its account's permissions."""
    if broadcast.planned_by_id is None:
        return True
    required = {Permission.WRITE} | ({Permission.PEOPLE} if broadcast.close_sessions else set())
    return required <= permissions_by_user.get(broadcast.planned_by_id, frozenset())


def _record_audit(session: Session, broadcast_id: int, reason: DecisionReason, now: datetime) -> None:
    audit.record(session, SYSTEM, "broadcast.waits", "broadcast", broadcast_id, now=now, reason=reason.sentence)
