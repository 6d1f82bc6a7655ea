"""Scheduled broadcasts that wait for a decision, and the scheduler's last run, which reveals an outage."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from broadcast.domain.lifecycle import Status
from broadcast.domain.permissions import Permission, get_role_permissions
from broadcast.store.broadcasts import WITHOUT_TEXT
from broadcast.store.database import db
from broadcast.store.models import Broadcast, User
from broadcast.store.models.activity import SchedulerState

_NEEDS_DECISION = (Broadcast.status == Status.SCHEDULED, Broadcast.decision_reason.is_not(None))


def list_waiting(*, limit: int) -> list[Broadcast]:
    """Scheduled broadcasts that wait for a decision, the most overdue first."""
    return _list_scheduled(*_NEEDS_DECISION, limit=limit)


def count_waiting() -> int:
    return db.session.scalar(select(func.count()).select_from(Broadcast).where(*_NEEDS_DECISION))


def list_next_due(*, limit: int) -> list[Broadcast]:
    """Scheduled broadcasts that go out automatically, the next first."""
    needs_no_decision = (Broadcast.status == Status.SCHEDULED, Broadcast.decision_reason.is_(None))
    return _list_scheduled(*needs_no_decision, limit=limit)


def _list_scheduled(*conditions: ColumnElement[bool], limit: int) -> list[Broadcast]:
    query = select(Broadcast).options(*WITHOUT_TEXT).where(*conditions).order_by(Broadcast.scheduled_at).limit(limit)
    return list(db.session.scalars(query))


def require_decision(session: Session, reason: str, *, due_until: datetime | None = None) -> list[int]:
    """Make every scheduled broadcast wait for a decision, or those due by `due_until`; return those newly waiting."""
    conditions = [Broadcast.status == Status.SCHEDULED, Broadcast.decision_reason.is_(None)]
    if due_until is not None:
        conditions.append(Broadcast.scheduled_at <= due_until)
    statement = update(Broadcast).where(*conditions).values(decision_reason=reason).returning(Broadcast.id)
    return sorted(session.scalars(statement.execution_options(synchronize_session=False)))


def get_permissions(session: Session, user_ids: Collection[int]) -> dict[int, frozenset[Permission]]:
    """What these users may do now: nothing for a disabled user, and no entry for a missing one."""
    users = session.scalars(select(User).where(User.id.in_(user_ids))) if user_ids else ()
    return {user.id: frozenset() if user.disabled_at else get_role_permissions(user.roles) for user in users}


def get_last_run() -> datetime | None:
    """When the scheduler of any worker last recorded a run; None when none ever did."""
    return db.session.scalar(select(SchedulerState.ran_at))


def record_run(session: Session, *, previous_run: datetime | None, now: datetime) -> bool:
    """Record a run at `now`. False when another worker has recorded one since `previous_run` was read."""
    if previous_run is None:
        session.add(SchedulerState(id=1, ran_at=now))
        session.flush()
        return True
    statement = update(SchedulerState).where(SchedulerState.ran_at == previous_run).values(ran_at=now)
    return session.execute(statement.execution_options(synchronize_session=False)).rowcount == 1
