"""Holding plans back until somebody decides: each by itself when it is due, many after a standstill or a restore."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import audit
from broadcast.domain.actor import SYSTEM
from broadcast.domain.overdue_schedules import GRACE, Reason, reason_to_wait
from broadcast.domain.permissions import Permission
from broadcast.store import overdue_schedules
from broadcast.store.database import writing
from broadcast.store.models import Broadcast

_log = structlog.get_logger(__name__)
_NOTE_EVERY = timedelta(seconds=15)


def notice_standstill(*, now: datetime, grace: timedelta = GRACE) -> None:
    """Note that the scheduler runs; when none did for longer than `grace`, what fell due meanwhile waits. Raises Busy."""
    before = overdue_schedules.last_run()
    if before is not None and before <= now < before + _NOTE_EVERY:
        return
    try:
        with writing() as session:
            is_first = overdue_schedules.note_run(session, before=before, now=now)
            stood_still = is_first and before is not None and now - before > grace
            held = overdue_schedules.hold_back(session, Reason.STANDSTILL, due_until=now) if stood_still else []
            _record(session, held, Reason.STANDSTILL, now)
    except IntegrityError:
        return  # two first workers at once
    if held:
        _log.warning("scheduler.stood_still", since=before.isoformat(), plans=len(held))


def hold_back_all(session: Session, *, now: datetime) -> int:
    """After a restore: every plan waits, also those of later, which may have been moved and sent; return how many."""
    held = overdue_schedules.hold_back(session, Reason.RESTORED)
    _record(session, held, Reason.RESTORED, now)
    return len(held)


def hold_back_unfit(session: Session, due: Sequence[Broadcast], *, now: datetime, grace: timedelta) -> list[Broadcast]:
    """Let those of these locked plans wait that may not go out by themselves; return the others."""
    known = overdue_schedules.permissions_of(
        session, {row.planned_by_id for row in due if row.planned_by_id is not None}
    )
    fit = []
    for broadcast in due:
        reason = reason_to_wait(
            due_at=broadcast.scheduled_at,
            ends_at=broadcast.expires_at,
            ack_due_at=broadcast.ack_due_at,
            planner_may=_planner_may(broadcast, known),
            now=now,
            grace=grace,
        )
        if reason is None:
            fit.append(broadcast)
            continue
        broadcast.decision_reason = reason.value
        _record(session, [broadcast.id], reason, now)
        _log.warning("scheduler.plan_waits", broadcast=broadcast.id, reason=reason.value)
    return fit


def _planner_may(broadcast: Broadcast, known: dict[int, frozenset[Permission]]) -> bool:
    """Whether who planned it could send it still. What a source announced goes out by the right of its account."""
    if broadcast.planned_by_id is None:
        return True
    wanted = {Permission.WRITE} | ({Permission.PEOPLE} if broadcast.close_sessions else set())
    return wanted <= known.get(broadcast.planned_by_id, frozenset())


def _record(session: Session, ids: Sequence[int], reason: Reason, now: datetime) -> None:
    for broadcast_id in ids:
        audit.record(session, SYSTEM, "broadcast.waits", "broadcast", broadcast_id, now=now, reason=reason.sentence)
