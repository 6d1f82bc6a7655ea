"""Broadcast queries, as the console and the scheduler need them."""

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, and_, cast, func, select, update
from sqlalchemy.orm import Session, defer

from broadcast.base.cooperative import Yielder
from broadcast.domain.lifecycle import Status
from broadcast.store import search
from broadcast.store.database import ROW_LOCK, db
from broadcast.store.fast.broadcast_row import NewBroadcast
from broadcast.store.fast.bulk_insert import insert_many, reserve_ids
from broadcast.store.models import (
    AuditEntry,
    Broadcast,
    BroadcastExceptRole,
    BroadcastRole,
    BroadcastUser,
    IdempotencyKey,
    SchedulerState,
    User,
)

WITHOUT_TEXT = (defer(Broadcast.content), defer(Broadcast.content_html))  # loader options of a list that shows titles
DUE_BATCH_SIZE = 25  # due broadcasts per scheduler transaction
_GOES_OUT = and_(Broadcast.status == Status.SCHEDULED, Broadcast.decision_reason.is_(None))
_AWAITS_DECISION = and_(Broadcast.status == Status.SCHEDULED, Broadcast.decision_reason.is_not(None))
# what the scheduler ends in each status, and when it is due
_DUE = {
    Status.SCHEDULED: (_GOES_OUT, Broadcast.scheduled_at),
    Status.ACTIVE: (Broadcast.status == Status.ACTIVE, Broadcast.expires_at),
}
_SCHEDULER_LOCK_KEY = zlib.crc32(b"clock")

STATUS_FILTERS = {
    "all": list(Status),
    "draft": [Status.DRAFT],
    "scheduled": [Status.SCHEDULED],
    "active": [Status.ACTIVE],
    "ended": [Status.EXPIRED, Status.CANCELLED],
}
TABS = STATUS_FILTERS | {"archived": list(Status)}
SORTS = {
    "newest": [Broadcast.id.desc()],
    "oldest": [Broadcast.id],
    "title": [func.lower(Broadcast.title), Broadcast.id],
    "start": [func.coalesce(Broadcast.published_at, Broadcast.scheduled_at).desc().nulls_last(), Broadcast.id.desc()],
    "due": [Broadcast.scheduled_at.asc().nulls_last(), Broadcast.id.desc()],
    "end": [Broadcast.expires_at.asc().nulls_last(), Broadcast.id.desc()],
    "reach": [Broadcast.audience_count.desc().nulls_last(), Broadcast.id.desc()],
}
PAGE_SIZES = (20, 50, 100)


@dataclass(frozen=True, slots=True)
class BroadcastQuery:
    """The filters, order and page of the console's list. Empty strings mean "any"; `number` is the page, from 1."""

    tab: str = "all"
    q: str = ""
    category: str = ""
    author: int | None = None
    priority: str = ""
    sort: str = "newest"
    number: int = 1
    size: int = PAGE_SIZES[0]

    @property
    def is_narrow(self) -> bool:
        """Whether any filter besides the tab is set."""
        return bool(self.q or self.category or self.author or self.priority)


def get(broadcast_id: int) -> Broadcast | None:
    return db.session.get(Broadcast, broadcast_id)


def lock_by_source_ids(session: Session, ids_by_source: Mapping[str, Collection[str]]) -> list[Broadcast]:
    """Broadcasts with these sources and source ids, of any owner; locked until the transaction ends."""
    rows: list[Broadcast] = []
    for source, ids in sorted(ids_by_source.items()):
        query = select(Broadcast).where(Broadcast.source == source, Broadcast.source_id.in_(ids)).order_by(Broadcast.id)
        rows += session.scalars(query.with_for_update(**ROW_LOCK))
    return rows


def add_many(session: Session, new_broadcasts: Sequence[NewBroadcast]) -> None:
    """Insert broadcasts with their role rows, and assign ids. Lets other greenlets run for long lists.

    For hundreds at once: flushing as many mapped objects took four times as long.
    """
    ids, rows, yielder = reserve_ids(session, Broadcast.__table__, len(new_broadcasts)), [], Yielder()
    for broadcast, broadcast_id in zip(new_broadcasts, ids, strict=True):
        broadcast.id = broadcast_id
        rows.append(broadcast.to_row())
        yielder.maybe_yield()
    insert_many(session, Broadcast.__table__, rows)
    for table, relation in ((BroadcastRole, "role_rows"), (BroadcastExceptRole, "except_role_rows")):
        roles = [
            {"broadcast_id": broadcast.id, "role_name": row.role_name}
            for broadcast in new_broadcasts
            for row in getattr(broadcast, relation)
        ]
        insert_many(session, table.__table__, roles)


def list_page(status_filter: str, *, q: str = "", before: int | None = None, limit: int = 30) -> list[Broadcast]:
    """At most `limit` broadcasts with id < `before`, newest first. `status_filter` is a key of STATUS_FILTERS."""
    query = select(Broadcast).where(Broadcast.status.in_(STATUS_FILTERS[status_filter]))
    if q:
        query = query.where(search.matches(q))
    if before is not None:
        query = query.where(Broadcast.id < before)
    return list(db.session.scalars(query.order_by(Broadcast.id.desc()).limit(limit)))


def count_published_since(since: datetime) -> int:
    """The number of broadcasts sent since then, cancelled ones included. Not tests: those are archived at once."""
    is_test = and_(Broadcast.archived_at.is_not(None), Broadcast.archived_at <= Broadcast.published_at)
    return db.session.scalar(select(func.count()).where(Broadcast.published_at >= since, ~is_test))


def count_drafts(user_id: int) -> int:
    """The number of this user's drafts, without quarantined and archived ones."""
    is_own_draft = (Broadcast.status == Status.DRAFT, Broadcast.sender_id == user_id, Broadcast.archived_at.is_(None))
    return db.session.scalar(select(func.count()).where(*is_own_draft, Broadcast.quarantine_reason.is_(None)))


def count_selected_users(ids: list[int]) -> dict[int, int]:
    """The number of selected users of each of these broadcasts that has any."""
    if not ids:
        return {}
    query = select(BroadcastUser.broadcast_id, func.count()).where(BroadcastUser.broadcast_id.in_(ids))
    return dict(db.session.execute(query.group_by(BroadcastUser.broadcast_id)).all())


def get_idempotency_key(user_id: int, key: str) -> IdempotencyKey | None:
    return db.session.get(IdempotencyKey, (user_id, key))


def update_drafts_with(session: Session, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Update the unfinished forms of drafts that contain `name`, in any case; `change` returns the new fields."""
    is_named = func.lower(cast(Broadcast.typed, Text)).contains(name.lower(), autoescape=True)
    query = select(Broadcast.id, Broadcast.typed).where(Broadcast.status == Status.DRAFT, is_named)
    for broadcast_id, typed in session.execute(query).all():
        statement = update(Broadcast).where(Broadcast.id == broadcast_id).values(typed=typed | change(typed))
        session.execute(statement.execution_options(synchronize_session=False))


def list_audit_entries(broadcast_id: int) -> list[AuditEntry]:
    """The audit of a broadcast, oldest first."""
    query = select(AuditEntry).where(AuditEntry.object_type == "broadcast", AuditEntry.object_id == str(broadcast_id))
    return list(db.session.scalars(query.order_by(AuditEntry.id)))


def list_overdue(now: datetime, *, limit: int) -> list[Broadcast]:
    """Live broadcasts past their acknowledgement deadline, the most overdue first."""
    is_overdue = and_(Broadcast.requires_ack, Broadcast.status == Status.ACTIVE, Broadcast.ack_due_at <= now)
    return _list_without_text(is_overdue, order=Broadcast.ack_due_at, limit=limit)


def list_awaiting_decision(*, limit: int) -> list[Broadcast]:
    """Scheduled broadcasts that wait for a decision, the most overdue first."""
    return _list_without_text(_AWAITS_DECISION, order=Broadcast.scheduled_at, limit=limit)


def count_awaiting_decision() -> int:
    return db.session.scalar(select(func.count()).where(_AWAITS_DECISION))


def list_next_due(*, limit: int) -> list[Broadcast]:
    """Scheduled broadcasts that go out automatically, the next first."""
    return _list_without_text(_GOES_OUT, order=Broadcast.scheduled_at, limit=limit)


def _list_without_text(condition: ColumnElement[bool], *, order: Any, limit: int) -> list[Broadcast]:
    query = select(Broadcast).options(*WITHOUT_TEXT).where(condition).order_by(order)
    return list(db.session.scalars(query.limit(limit)))


def require_decision(session: Session, reason: str, *, due_until: datetime | None = None) -> list[int]:
    """Make every scheduled broadcast wait for a decision, or those due by `due_until`; return those newly waiting."""
    statement = update(Broadcast).where(_GOES_OUT).values(decision_reason=reason).returning(Broadcast.id)
    if due_until is not None:
        statement = statement.where(Broadcast.scheduled_at <= due_until)
    return sorted(session.scalars(statement.execution_options(synchronize_session=False)))


def list_due_ids(status: Status, now: datetime, *, excluded_ids: Sequence[int] = ()) -> list[int]:
    """Ids of due scheduled broadcasts, or of live ones past their end; at most DUE_BATCH_SIZE, oldest first."""
    query = select(Broadcast.id).where(_is_due(status, now), Broadcast.id.not_in(excluded_ids))
    return list(db.session.scalars(query.order_by(_DUE[status][1], Broadcast.id).limit(DUE_BATCH_SIZE)))


def lock_due(session: Session, status: Status, ids: Sequence[int], now: datetime) -> list[Broadcast] | None:
    """Lock those of `ids` that are still due in this status, in this order; None while another worker's scheduler runs.

    Only one scheduler at a time, or parts of what is due would overtake each other. Rows that are being changed are
    skipped, not waited for.
    """
    is_server_database = session.get_bind().dialect.name != "sqlite"  # on SQLite a writer has the whole database
    if is_server_database and not session.scalar(select(func.pg_try_advisory_xact_lock(_SCHEDULER_LOCK_KEY))):
        return None
    query = select(Broadcast).where(Broadcast.id.in_(ids), _is_due(status, now))
    rows = session.scalars(query.with_for_update(**ROW_LOCK, skip_locked=True))
    return sorted(rows, key=lambda row: ids.index(row.id))


def _is_due(status: Status, now: datetime) -> ColumnElement[bool]:
    condition, due_column = _DUE[status]
    return and_(condition, due_column <= now)


def get_next_due_at() -> datetime | None:
    """When the scheduler has something to do next; None when nothing is scheduled."""
    due_times = (db.session.scalar(select(func.min(column)).where(condition)) for condition, column in _DUE.values())
    return min(filter(None, due_times), default=None)


def get_last_scheduler_run() -> datetime | None:
    """When the scheduler of any worker last recorded a run; None when none ever did."""
    return db.session.scalar(select(SchedulerState.ran_at))


def record_scheduler_run(session: Session, *, previous_run: datetime | None, now: datetime) -> bool:
    """Record a run at `now`. False when another worker has recorded one since `previous_run` was read."""
    if previous_run is None:
        session.add(SchedulerState(id=1, ran_at=now))
        session.flush()
        return True
    statement = update(SchedulerState).where(SchedulerState.ran_at == previous_run).values(ran_at=now)
    return session.execute(statement.execution_options(synchronize_session=False)).rowcount == 1


def list_matching(criteria: BroadcastQuery) -> list[Broadcast]:
    """One page of broadcasts, without their texts."""
    query = _select_matching(select(Broadcast).options(*WITHOUT_TEXT), criteria)
    return list(db.session.scalars(query.offset((criteria.number - 1) * criteria.size).limit(criteria.size)))


def count_by_tab(criteria: BroadcastQuery) -> dict[str, int]:
    """The number of broadcasts in each tab under the same filters."""
    is_archived = Broadcast.archived_at.is_not(None)
    query = select(Broadcast.status, is_archived, func.count()).where(*_build_conditions(criteria))
    rows = db.session.execute(query.group_by(Broadcast.status, is_archived)).all()
    return {
        tab: sum(n for status, archived, n in rows if status in statuses and bool(archived) == (tab == "archived"))
        for tab, statuses in TABS.items()
    }


def list_matching_ids(criteria: BroadcastQuery, *, limit: int) -> list[int]:
    """Ids of all matching broadcasts in sort order, at most `limit`, on whatever page."""
    return list(db.session.scalars(_select_matching(select(Broadcast.id), criteria).limit(limit)))


def list_by_ids(ids: Sequence[int]) -> list[Broadcast]:
    """These broadcasts in this order, without their texts; those deleted meanwhile are left out."""
    query = select(Broadcast).options(*WITHOUT_TEXT).where(Broadcast.id.in_(ids))
    rows_by_id = {row.id: row for row in db.session.scalars(query)}
    return [rows_by_id[broadcast_id] for broadcast_id in ids if broadcast_id in rows_by_id]


def list_categories() -> list[str]:
    query = select(Broadcast.category).where(Broadcast.category.is_not(None)).distinct().order_by(Broadcast.category)
    return list(db.session.scalars(query.limit(200)))


def list_authors() -> list[tuple[int, str]]:
    """Who has written a broadcast: (user id, name). Not the displayed sender: an inbound event names itself."""
    author_ids = select(Broadcast.sender_id).distinct()
    query = select(User.id, User.name).where(User.id.in_(author_ids))
    return sorted(map(tuple, db.session.execute(query)), key=lambda author: author[1].lower())


def _select_matching(query: Select, criteria: BroadcastQuery) -> Select:
    is_archived = Broadcast.archived_at.is_not(None)
    is_in_tab = (Broadcast.status.in_(TABS[criteria.tab]), is_archived if criteria.tab == "archived" else ~is_archived)
    return query.where(*_build_conditions(criteria), *is_in_tab).order_by(*SORTS[criteria.sort])


def _build_conditions(criteria: BroadcastQuery) -> list[ColumnElement[bool]]:
    values_by_column = {
        Broadcast.category: criteria.category,
        Broadcast.sender_id: criteria.author,
        Broadcast.priority: criteria.priority,
    }
    conditions = [column == value for column, value in values_by_column.items() if value]
    return [*conditions, search.matches(criteria.q)] if criteria.q else conditions
