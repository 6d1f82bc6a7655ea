"""Broadcast queries, as the console and the scheduler need them."""

import zlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, select
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
)

WITHOUT_TEXT = (defer(Broadcast.content), defer(Broadcast.content_html))  # loader options of a list that shows titles
DUE_BATCH_SIZE = 25  # due broadcasts per scheduler transaction
_DUE_COLUMNS = {Status.SCHEDULED: Broadcast.scheduled_at, Status.ACTIVE: Broadcast.expires_at}  # when the status ends
_NEEDS_NO_DECISION = Broadcast.decision_reason.is_(None)  # otherwise a user has to decide first
_SCHEDULER_LOCK_KEY = zlib.crc32(b"clock")

STATUS_FILTERS = {
    "all": list(Status),
    "draft": [Status.DRAFT],
    "scheduled": [Status.SCHEDULED],
    "active": [Status.ACTIVE],
    "ended": [Status.EXPIRED, Status.CANCELLED],
}


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
    rows, yielder = [], Yielder()
    for broadcast, broadcast_id in zip(
        new_broadcasts, reserve_ids(session, Broadcast.__table__, len(new_broadcasts)), strict=True
    ):
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


def list_audit_entries(broadcast_id: int) -> list[AuditEntry]:
    """The audit of a broadcast, oldest first."""
    query = select(AuditEntry).where(
        and_(AuditEntry.object_type == "broadcast", AuditEntry.object_id == str(broadcast_id))
    )
    return list(db.session.scalars(query.order_by(AuditEntry.id)))


def list_overdue(now: datetime, *, limit: int) -> list[Broadcast]:
    """Live broadcasts past their acknowledgement deadline, the most overdue first."""
    query = (
        select(Broadcast)
        .options(*WITHOUT_TEXT)
        .where(Broadcast.requires_ack, Broadcast.status == Status.ACTIVE, Broadcast.ack_due_at <= now)
    )
    return list(db.session.scalars(query.order_by(Broadcast.ack_due_at).limit(limit)))


def list_due_ids(status: Status, now: datetime, *, excluded_ids: Sequence[int] = ()) -> list[int]:
    """Ids of due scheduled broadcasts, or of live ones past their end; at most DUE_BATCH_SIZE, oldest first."""
    query = select(Broadcast.id).where(_is_due(status, now), Broadcast.id.not_in(excluded_ids))
    return list(db.session.scalars(query.order_by(_DUE_COLUMNS[status], Broadcast.id).limit(DUE_BATCH_SIZE)))


def lock_due(session: Session, status: Status, ids: Sequence[int], now: datetime) -> list[Broadcast] | None:
    """Lock those of `ids` that are still due in this status, in this order; None while another worker's scheduler runs.

    Only one scheduler at a time, or parts of what is due would overtake each other. Rows that are being changed are
    skipped, not waited for.
    """
    is_server_database = session.get_bind().dialect.name != "sqlite"  # on SQLite a writer has the whole database
    if is_server_database and not session.scalar(select(func.pg_try_advisory_xact_lock(_SCHEDULER_LOCK_KEY))):
        return None
    query = select(Broadcast).where(Broadcast.id.in_(ids), _is_due(status, now))
    return sorted(
        session.scalars(query.with_for_update(**ROW_LOCK, skip_locked=True)), key=lambda row: ids.index(row.id)
    )


def _is_due(status: Status, now: datetime) -> ColumnElement[bool]:
    is_due = and_(Broadcast.status == status, _DUE_COLUMNS[status] <= now)
    return and_(is_due, _NEEDS_NO_DECISION) if status == Status.SCHEDULED else is_due


def get_next_due_at() -> datetime | None:
    """When the scheduler has something to do next; None when nothing is scheduled."""
    next_start = db.session.scalar(
        select(func.min(Broadcast.scheduled_at)).where(Broadcast.status == Status.SCHEDULED, _NEEDS_NO_DECISION)
    )
    next_end = db.session.scalar(select(func.min(Broadcast.expires_at)).where(Broadcast.status == Status.ACTIVE))
    return min(filter(None, (next_start, next_end)), default=None)
