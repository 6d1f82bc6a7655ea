"""The outbox: claiming deliveries, recording what became of them, and what the page Channels shows."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Select, Table, bindparam, func, select, update
from sqlalchemy.orm import Session

from broadcast.store.database import MAX_IN_VALUES, build_insert, db
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.models import Broadcast, ChannelSettings, Delivery, User

MAX_REASON_CHARACTERS = 300


class ClaimedDelivery(NamedTuple):
    """A delivery that this worker alone may send until the end of its lease. `problem` is why the last attempt failed."""

    id: int
    broadcast_id: int
    revision: int
    user_id: int
    step_id: int
    message_id: str
    attempts: int
    created_at: datetime
    problem: str | None


_TABLE: Table = Delivery.__table__
_CLAIMED_COLUMNS = [_TABLE.c["reason" if name == "problem" else name] for name in ClaimedDelivery._fields]
# made once: SQLAlchemy takes longer to make such a statement than to run it
_SETTLE = (
    update(_TABLE)
    .where(
        _TABLE.c.id == bindparam("claimed_id"),
        _TABLE.c.state == "WAITING",
        _TABLE.c.attempts == bindparam("claimed_attempts"),
    )
    .values({name: bindparam(f"new_{name}") for name in ("state", "due_at", "ended_at", "reason")})
)


class Settlement(NamedTuple):
    """What became of a claimed delivery: its end (SENT, FAILED, CANCELLED), or WAITING until `due_at`, and why."""

    claimed: ClaimedDelivery
    state: str
    reason: str | None = None
    due_at: datetime | None = None


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
    """The settings of a channel as they are now, or as they will be once there is a row."""
    row = db.session.get(ChannelSettings, channel, populate_existing=True)
    return row or ChannelSettings(channel=channel)


def get_settings_for_update(session: Session, channel: str) -> ChannelSettings:
    """The row of a channel, which is added when there is none."""
    row = session.get(ChannelSettings, channel)
    if row is None:
        statement = build_insert(session, ChannelSettings.__table__).values(channel=channel)
        session.execute(statement.on_conflict_do_nothing())
        row = session.get(ChannelSettings, channel)
    return row


def has_due(channel: str, *, now: datetime) -> bool:
    return db.session.scalar(select(_select_due(channel, now).exists()))


def _select_due(channel: str, now: datetime) -> Select:
    return select(Delivery.id).where(Delivery.channel == channel, Delivery.state == "WAITING", Delivery.due_at <= now)


def claim(session: Session, channel: str, *, now: datetime, until: datetime, limit: int) -> list[ClaimedDelivery]:
    """Claim due deliveries until `until`: a worker that dies leaves them to the others from then on."""
    due_ids = _select_due(channel, now).order_by(Delivery.due_at).limit(limit).with_for_update(skip_locked=True)
    statement = update(_TABLE).where(_TABLE.c.id.in_(due_ids)).values(attempts=_TABLE.c.attempts + 1, due_at=until)
    return [ClaimedDelivery(*row) for row in session.connection().execute(statement.returning(*_CLAIMED_COLUMNS))]


def settle(session: Session, settlements: Sequence[Settlement], *, at: datetime) -> None:
    """Record what became of claimed deliveries, except where the lease ended and another worker has claimed it since."""
    rows = [
        {
            "claimed_id": claimed.id,
            "claimed_attempts": claimed.attempts,
            "new_state": state,
            "new_due_at": due_at or at,
            "new_ended_at": None if state == "WAITING" else at,
            "new_reason": trim_reason(reason),
        }
        for claimed, state, reason, due_at in settlements
    ]
    if rows:
        session.connection().execute(_SETTLE, rows)


def trim_reason(reason: str | None) -> str | None:
    """As much of a reason as is kept."""
    return reason and reason[:MAX_REASON_CHARACTERS]


def set_problem(session: Session, channel: str, problem: str | None, *, at: datetime) -> None:
    """Record that the channel's server takes nothing and why, or that it works again (None)."""
    row = get_settings_for_update(session, channel)
    row.failing_since = problem and (row.failing_since or at)
    row.problem = trim_reason(problem)


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


def count_by_step(broadcast_id: int) -> dict[int, dict[str, int]]:
    """How many deliveries of a broadcast are in each state, by the id of their step."""
    query = select(Delivery.step_id, Delivery.state, func.count()).where(Delivery.broadcast_id == broadcast_id)
    counts: dict[int, dict[str, int]] = {}
    rows = db.session.execute(query.group_by(Delivery.step_id, Delivery.state), execution_options=RUN_IN_THREAD)
    for step_id, state, count in rows:
        counts.setdefault(step_id, {})[state] = count
    return counts


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
