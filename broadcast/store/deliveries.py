"""The outbox: claiming deliveries, recording what became of them, and what the page Channels shows."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, exists, func, select, update
from sqlalchemy.orm import Session

from broadcast.store import outbox_rows
from broadcast.store.database import MAX_IN_VALUES, db
from broadcast.store.models import Broadcast, ChannelSettings, Delivery, User


class ClaimedDelivery(NamedTuple):
    """A delivery that this worker alone may send until the end of its lease. `problem` is why the last attempt failed."""

    id: int
    broadcast_id: int
    revision: int
    user_id: int
    message_id: str
    attempts: int
    created_at: datetime
    problem: str | None


class QueueState(NamedTuple):
    """`due` of the waiting ones could be sent now, since `oldest_due_at`."""

    waiting: int
    due: int
    oldest_due_at: datetime | None


class FailedDelivery(NamedTuple):
    """A delivery that was given up."""

    id: int
    broadcast_id: int
    title: str
    user_id: int
    user_name: str
    attempts: int
    ended_at: datetime
    reason: str


def get_settings(channel: str) -> ChannelSettings:
    return db.session.get(ChannelSettings, channel, populate_existing=True)


def has_due(channel: str, *, now: datetime) -> bool:
    return db.session.scalar(select(exists().where(*_due_conditions(channel, now))))


def _due_conditions(channel: str, now: datetime) -> tuple[ColumnElement[bool], ...]:
    return Delivery.channel == channel, Delivery.state == "WAITING", Delivery.due_at <= now


def claim(session: Session, channel: str, *, now: datetime, until: datetime, limit: int) -> list[ClaimedDelivery]:
    """Claim due deliveries until `until`: a worker that dies leaves them to the others from then on."""
    conditions = _due_conditions(channel, now)
    rows = outbox_rows.claim(session, Delivery, conditions, order_by=(Delivery.due_at,), until=until, limit=limit)
    return [
        ClaimedDelivery(
            row.id,
            row.broadcast_id,
            row.revision,
            row.user_id,
            row.message_id,
            row.attempts,
            row.created_at,
            row.reason,
        )
        for row in rows
    ]


def finish(session: Session, claimed: ClaimedDelivery, state: str, *, at: datetime, reason: str | None = None) -> None:
    """Record the outcome of a claimed delivery, unless the lease ended and another worker has claimed it since."""
    values = {"state": state, "ended_at": at, "reason": outbox_rows.trim_reason(reason)}
    outbox_rows.update_claimed(session, Delivery, claimed.id, claimed.attempts, **values)


def postpone(session: Session, claimed: ClaimedDelivery, due_at: datetime, *, reason: str | None = None) -> None:
    """Give a claimed delivery back, to be sent at `due_at`."""
    values = {"due_at": due_at, "reason": outbox_rows.trim_reason(reason or claimed.problem)}
    outbox_rows.update_claimed(session, Delivery, claimed.id, claimed.attempts, **values)


def set_problem(session: Session, channel: str, problem: str | None, *, at: datetime) -> None:
    """Record that the channel's server takes nothing and why, or that it works again (None)."""
    row = session.get(ChannelSettings, channel)
    row.failing_since = problem and (row.failing_since or at)
    row.problem = outbox_rows.trim_reason(problem)


def measure_queue(channel: str, *, now: datetime) -> QueueState:
    waiting = select(func.count()).where(Delivery.channel == channel, Delivery.state == "WAITING")
    due_query = select(func.count(), func.min(Delivery.due_at)).where(
        Delivery.channel == channel, Delivery.state == "WAITING", Delivery.due_at <= now
    )
    return QueueState(db.session.scalar(waiting), *db.session.execute(due_query).one())


def count_outcomes(channel: str, *, since: datetime) -> dict[str, int]:
    """How many deliveries ended since then, by state."""
    query = select(Delivery.state, func.count()).where(Delivery.channel == channel, Delivery.ended_at >= since)
    states = ("SENT", "FAILED", "CANCELLED")
    return dict(map(tuple, db.session.execute(query.where(Delivery.state.in_(states)).group_by(Delivery.state))))


def list_failed(channel: str, *, limit: int) -> list[FailedDelivery]:
    """Deliveries that were given up, the newest first."""
    query = (
        select(
            Delivery.id,
            Delivery.broadcast_id,
            Broadcast.title,
            Delivery.user_id,
            User.name,
            Delivery.attempts,
            Delivery.ended_at,
            Delivery.reason,
        )
        .join(Broadcast, Broadcast.id == Delivery.broadcast_id)
        .join(User, User.id == Delivery.user_id)
        .where(Delivery.channel == channel, Delivery.state == "FAILED")
        .order_by(Delivery.ended_at.desc(), Delivery.id.desc())
    )
    return [FailedDelivery(*row) for row in db.session.execute(query.limit(limit))]


def retry_failed(session: Session, channel: str, ids: Sequence[int], *, now: datetime) -> int:
    """Put failed deliveries back into the queue, with a new span of attempts; return how many were."""
    is_failed = (Delivery.id.in_(ids[:MAX_IN_VALUES]), Delivery.channel == channel, Delivery.state == "FAILED")
    values = {"state": "WAITING", "due_at": now, "created_at": now, "ended_at": None}
    return session.execute(update(Delivery.__table__).where(*is_failed).values(values)).rowcount
