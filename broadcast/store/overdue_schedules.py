"""Plans that wait for a decision, and when the scheduler last ran: what tells a standstill."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from broadcast.domain.lifecycle import Status
from broadcast.domain.permissions import Permission, of_roles
from broadcast.store.broadcasts import WITHOUT_TEXT
from broadcast.store.database import db
from broadcast.store.models import Broadcast, User
from broadcast.store.models.activity import SchedulerState

_WAITS = (Broadcast.status == Status.SCHEDULED, Broadcast.decision_reason.is_not(None))


def waiting(*, limit: int) -> list[Broadcast]:
    """Plans that wait for a decision, the one that should have gone out first at the top."""
    return _listed(*_WAITS, limit=limit)


def count_waiting() -> int:
    return db.session.scalar(select(func.count()).select_from(Broadcast).where(*_WAITS))


def due_next(*, limit: int) -> list[Broadcast]:
    """Plans that go out by themselves, the next first."""
    goes = (Broadcast.status == Status.SCHEDULED, Broadcast.decision_reason.is_(None))
    return _listed(*goes, limit=limit)


def _listed(*wanted: ColumnElement[bool], limit: int) -> list[Broadcast]:
    query = select(Broadcast).options(*WITHOUT_TEXT).where(*wanted).order_by(Broadcast.scheduled_at).limit(limit)
    return list(db.session.scalars(query))


def hold_back(session: Session, reason: str, *, due_until: datetime | None = None) -> list[int]:
    """Let every plan wait for a decision, or only those that are due by then; return those that did not wait before."""
    wanted = [Broadcast.status == Status.SCHEDULED, Broadcast.decision_reason.is_(None)]
    if due_until is not None:
        wanted.append(Broadcast.scheduled_at <= due_until)
    statement = update(Broadcast).where(*wanted).values(decision_reason=reason).returning(Broadcast.id)
    return sorted(session.scalars(statement.execution_options(synchronize_session=False)))


def permissions_of(session: Session, user_ids: Collection[int]) -> dict[int, frozenset[Permission]]:
    """What these people may do now; nothing for who is disabled, and no entry for who is not there."""
    found = session.scalars(select(User).where(User.id.in_(user_ids))) if user_ids else ()
    return {user.id: frozenset() if user.disabled_at else of_roles(user.roles) for user in found}


def last_run() -> datetime | None:
    """When the scheduler of any worker noted last that it runs; None when none ever did."""
    return db.session.scalar(select(SchedulerState.ran_at))


def note_run(session: Session, *, before: datetime | None, now: datetime) -> bool:
    """Note that the scheduler runs at `now`. False when another worker's has done so since `before` was read."""
    if before is None:
        session.add(SchedulerState(id=1, ran_at=now))
        session.flush()
        return True
    statement = update(SchedulerState).where(SchedulerState.ran_at == before).values(ran_at=now)
    return session.execute(statement.execution_options(synchronize_session=False)).rowcount == 1
