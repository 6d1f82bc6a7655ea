"""Questions about broadcasts, as the console asks them."""

import zlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from broadcast.domain.audience import Audience
from broadcast.domain.lifecycle import Status
from broadcast.store import audiences
from broadcast.store.database import ROW_LOCK, db
from broadcast.store.many import insert_many, new_ids
from broadcast.store.models import (
    Audit,
    Broadcast,
    BroadcastExceptRole,
    BroadcastRole,
    BroadcastUser,
    IdempotencyKey,
)
from broadcast.store.unsaved import NewBroadcast
from broadcast.turn import Breath

AT_ONCE = 25  # due broadcasts in one transaction of the clock
_CLOCK = {Status.SCHEDULED: Broadcast.scheduled_at, Status.ACTIVE: Broadcast.expires_at}  # what ends a wait
_CLOCK_LOCK = zlib.crc32(b"clock")

FILTERS = {
    "all": list(Status),
    "draft": [Status.DRAFT],
    "scheduled": [Status.SCHEDULED],
    "active": [Status.ACTIVE],
    "ended": [Status.EXPIRED, Status.CANCELLED],
}


def by_id(broadcast_id: int) -> Broadcast | None:
    return db.session.get(Broadcast, broadcast_id)


def by_source(session: Session, wanted: Mapping[str, Collection[str]]) -> dict[tuple[str, str], Broadcast]:
    """Broadcasts announced from outside, by source and id there; locked until the transaction ends."""
    found = {}
    for source, ids in sorted(wanted.items()):
        query = select(Broadcast).where(Broadcast.source == source, Broadcast.source_id.in_(ids)).order_by(Broadcast.id)
        found |= {(source, row.source_id): row for row in session.scalars(query.with_for_update(**ROW_LOCK))}
    return found


def add_many(session: Session, new: Sequence[NewBroadcast]) -> None:
    """Insert broadcasts with the rows of their roles, and give each its id. Lets other greenlets run when they are many.

    For hundreds at once: a flush of as many mapped objects took four times as long.
    """
    rows, breath = [], Breath()
    for broadcast, broadcast_id in zip(new, new_ids(session, Broadcast.__table__, len(new)), strict=True):
        broadcast.id = broadcast_id
        rows.append(broadcast.as_row())
        breath.take()
    insert_many(session, Broadcast.__table__, rows)
    for table, relation in ((BroadcastRole, "role_rows"), (BroadcastExceptRole, "except_role_rows")):
        roles = [
            {"broadcast_id": broadcast.id, "role_name": row.role_name}
            for broadcast in new
            for row in getattr(broadcast, relation)
        ]
        insert_many(session, table.__table__, roles)


def audience(broadcast: Broadcast) -> Audience:
    return audiences.of(broadcast)


def page(filter: str, *, q: str = "", before: int | None = None, limit: int = 30) -> list[Broadcast]:
    """At most `limit` broadcasts with id < `before`, newest first. `filter` is a key of FILTERS."""
    query = _searched(select(Broadcast).where(Broadcast.status.in_(FILTERS[filter])), q)
    if before is not None:
        query = query.where(Broadcast.id < before)
    return list(db.session.scalars(query.order_by(Broadcast.id.desc()).limit(limit)))


def counts(q: str = "") -> dict[str, int]:
    """How many broadcasts each filter shows."""
    query = _searched(select(Broadcast.status, func.count()).group_by(Broadcast.status), q)
    by_status = dict(db.session.execute(query).all())
    return {name: sum(by_status.get(status, 0) for status in statuses) for name, statuses in FILTERS.items()}


def published_since(moment: datetime) -> int:
    return db.session.scalar(select(func.count()).where(Broadcast.published_at >= moment))


def chosen_counts(ids: list[int]) -> dict[int, int]:
    """Number of chosen people of each of these broadcasts that has any."""
    if not ids:
        return {}
    query = select(BroadcastUser.broadcast_id, func.count()).where(BroadcastUser.broadcast_id.in_(ids))
    return dict(db.session.execute(query.group_by(BroadcastUser.broadcast_id)).all())


def by_idempotency_key(user_id: int, key: str) -> IdempotencyKey | None:
    return db.session.get(IdempotencyKey, (user_id, key))


def timeline(broadcast_id: int) -> list[Audit]:
    """What was done to a broadcast, oldest first."""
    query = select(Audit).where(and_(Audit.object_type == "broadcast", Audit.object_id == str(broadcast_id)))
    return list(db.session.scalars(query.order_by(Audit.id)))


def overdue(now: datetime, *, limit: int) -> list[Broadcast]:
    """Live broadcasts whose day of acknowledgement has passed, the longest first."""
    query = select(Broadcast).where(
        Broadcast.requires_ack, Broadcast.status == Status.ACTIVE, Broadcast.ack_due_at <= now
    )
    return list(db.session.scalars(query.order_by(Broadcast.ack_due_at).limit(limit)))


def due(status: Status, now: datetime, *, but_not: Sequence[int] = ()) -> list[int]:
    """Ids of scheduled broadcasts whose time has come, or of live ones whose time is over; at most AT_ONCE, oldest first."""
    query = select(Broadcast.id).where(_is_due(status, now), Broadcast.id.not_in(but_not))
    return list(db.session.scalars(query.order_by(_CLOCK[status], Broadcast.id).limit(AT_ONCE)))


def claim(session: Session, status: Status, ids: Sequence[int], now: datetime) -> list[Broadcast] | None:
    """Lock those of `ids` that are due in this status still, in this order; None while another worker's clock is at it.

    One clock at a time, or parts of what is due would overtake each other. What somebody is changing is left out, not
    waited for.
    """
    is_shared = session.get_bind().dialect.name != "sqlite"  # there a writer has the whole database
    if is_shared and not session.scalar(select(func.pg_try_advisory_xact_lock(_CLOCK_LOCK))):
        return None
    query = select(Broadcast).where(Broadcast.id.in_(ids), _is_due(status, now))
    return sorted(
        session.scalars(query.with_for_update(**ROW_LOCK, skip_locked=True)), key=lambda row: ids.index(row.id)
    )


def _is_due(status: Status, now: datetime) -> ColumnElement[bool]:
    return and_(Broadcast.status == status, _CLOCK[status] <= now)


def next_due_at() -> datetime | None:
    """When the clock has something to do next; None when nothing is planned."""
    start = db.session.scalar(select(func.min(Broadcast.scheduled_at)).where(Broadcast.status == Status.SCHEDULED))
    end = db.session.scalar(select(func.min(Broadcast.expires_at)).where(Broadcast.status == Status.ACTIVE))
    return min(filter(None, (start, end)), default=None)


def _searched(query: Select, q: str) -> Select:
    if not q:
        return query
    text = "%" + q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    return query.where(or_(Broadcast.title.ilike(text, escape="\\"), Broadcast.content.ilike(text, escape="\\")))
