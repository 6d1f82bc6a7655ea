"""Questions about broadcasts, as the console asks them."""

import zlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import Session, defer

from broadcast.base.cooperative import Breath
from broadcast.domain.audience import Audience
from broadcast.domain.lifecycle import Status
from broadcast.store import audiences, search
from broadcast.store.database import ROW_LOCK, db
from broadcast.store.fast.broadcast_row import NewBroadcast
from broadcast.store.fast.bulk_insert import insert_many, new_ids
from broadcast.store.models import (
    Audit,
    Broadcast,
    BroadcastExceptRole,
    BroadcastRole,
    BroadcastUser,
    IdempotencyKey,
)

WITHOUT_TEXT = (defer(Broadcast.content), defer(Broadcast.content_html))  # options of a list that shows titles
AT_ONCE = 25  # due broadcasts in one transaction of the clock
_CLOCK = {Status.SCHEDULED: Broadcast.scheduled_at, Status.ACTIVE: Broadcast.expires_at}  # what ends a wait
_MAY_GO = Broadcast.decision_reason.is_(None)  # else somebody has to decide first
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


def by_source(session: Session, wanted: Mapping[str, Collection[str]]) -> list[Broadcast]:
    """Broadcasts announced from outside with these sources and ids there, whoever's; locked until the transaction ends."""
    found: list[Broadcast] = []
    for source, ids in sorted(wanted.items()):
        query = select(Broadcast).where(Broadcast.source == source, Broadcast.source_id.in_(ids)).order_by(Broadcast.id)
        found += session.scalars(query.with_for_update(**ROW_LOCK))
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
    """How many went out since then, recalled ones too. Not tests, which are archived from the beginning."""
    is_test = and_(Broadcast.archived_at.is_not(None), Broadcast.archived_at <= Broadcast.published_at)
    return db.session.scalar(select(func.count()).where(Broadcast.published_at >= moment, ~is_test))


def count_drafts(user_id: int) -> int:
    """Drafts that this person keeps. Not what their source's rules held back, and nothing that is put away."""
    mine = (Broadcast.status == Status.DRAFT, Broadcast.sender_id == user_id, Broadcast.archived_at.is_(None))
    return db.session.scalar(select(func.count()).where(*mine, Broadcast.quarantine_reason.is_(None)))


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
    query = (
        select(Broadcast)
        .options(*WITHOUT_TEXT)
        .where(Broadcast.requires_ack, Broadcast.status == Status.ACTIVE, Broadcast.ack_due_at <= now)
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
    is_due = and_(Broadcast.status == status, _CLOCK[status] <= now)
    return and_(is_due, _MAY_GO) if status == Status.SCHEDULED else is_due


def next_due_at() -> datetime | None:
    """When the clock has something to do next; None when nothing is planned."""
    start = db.session.scalar(
        select(func.min(Broadcast.scheduled_at)).where(Broadcast.status == Status.SCHEDULED, _MAY_GO)
    )
    end = db.session.scalar(select(func.min(Broadcast.expires_at)).where(Broadcast.status == Status.ACTIVE))
    return min(filter(None, (start, end)), default=None)


def _searched(query: Select, q: str) -> Select:
    return query.where(search.matches(q)) if q else query
