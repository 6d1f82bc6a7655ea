"""The audit: append-only rows, each with a hash that covers the previous one.

Actions add their rows at any point of a transaction; they are numbered and chained just before its commit, under the
lock of one head row. That lock is the last one a transaction acquires, so nobody waits while holding it, and it is held
for three statements whatever the action did.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from types import NoneType
from typing import Any

from sqlalchemy import Select, event, func, or_, select, update
from sqlalchemy.orm import Session, SessionTransaction

from broadcast.base.cooperative import Yielder
from broadcast.domain import audit_hash
from broadcast.domain.actor import Actor
from broadcast.store import search
from broadcast.store.database import db
from broadcast.store.fast.bulk_insert import insert_many
from broadcast.store.models import AuditEntry, AuditHead, User

_PENDING_KEY = "audit_waiting"  # in Session.info: unchained rows of this transaction
_JSON_SAFE_TYPES = {str, int, bool, NoneType}  # unchanged by a round trip through JSON
_VERIFY_BATCH_ROWS = 1000  # rows per step of `verify_chain`
_HASHED_COLUMNS = ("id", "at", "actor_id", "actor_name", "action", "object_type", "object_id", "detail")


@dataclass(frozen=True, slots=True)
class AuditFilters:
    """Filters of the page. Empty strings and None mean "any"; `what` is a prefix of the action."""

    who: str = ""
    what: str = ""
    object_type: str = ""
    object_id: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ChainVerification:
    """How far the chain is intact: `broken_id` is the first bad row (None: none), `head_hash` the last good hash."""

    row_count: int
    head_hash: str
    broken_id: int | None = None
    problem: str = ""


def record(
    session: Session,
    by: Actor,
    action: str,
    object_type: str,
    object_id: int | str | None,
    *,
    now: datetime,
    **detail: Any,
) -> None:
    """Add a row to this transaction; it is dropped when the transaction, or a surrounding savepoint, is rolled back.

    `detail` is any JSON-serialisable data.
    """
    if not all(type(value) in _JSON_SAFE_TYPES for value in detail.values()):
        detail = json.loads(json.dumps(detail, default=str))  # hashed as it will be read back
    row = {"at": now, "actor_id": by.user_id, "actor_name": by.name, "action": action, "object_type": object_type}
    row |= {"object_id": None if object_id is None else str(object_id), "detail": detail}
    session.info.setdefault(_PENDING_KEY, []).append((row, list(_iterate_open_transactions(session))))


def _iterate_open_transactions(session: Session) -> Iterator[SessionTransaction]:
    transaction = session.get_nested_transaction() or session.get_transaction()
    while transaction is not None:
        yield transaction
        transaction = transaction.parent


@event.listens_for(Session, "before_commit")
def _chain_pending_rows(session: Session) -> None:
    if session.in_nested_transaction():  # a savepoint is released; the commit comes later
        return
    pending_rows = [row for row, _ in session.info.pop(_PENDING_KEY, [])]
    if not pending_rows:
        return
    session.flush()
    last_id, last_hash = session.execute(select(AuditHead.last_id, AuditHead.hash).with_for_update()).one()
    yielder = Yielder()
    for row in pending_rows:
        last_id += 1
        last_hash = audit_hash.next_hash(last_hash, id=last_id, **row)
        row |= {"id": last_id, "hash": last_hash}
        yielder.maybe_yield()
    insert_many(session, AuditEntry.__table__, pending_rows)
    session.execute(update(AuditHead.__table__).values(last_id=last_id, hash=last_hash))


@event.listens_for(Session, "after_soft_rollback")
def _discard_rolled_back(session: Session, rolled_back: SessionTransaction) -> None:
    pending = session.info.get(_PENDING_KEY, [])
    session.info[_PENDING_KEY] = [
        (row, open_transactions) for row, open_transactions in pending if rolled_back not in open_transactions
    ]


def list_page(filters: AuditFilters, *, before: int | None = None, limit: int = 50) -> list[AuditEntry]:
    """At most `limit` rows with id < `before`, newest first."""
    query = _apply_filters(select(AuditEntry), filters).order_by(AuditEntry.id.desc()).limit(limit)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    return list(db.session.scalars(query))


def list_object_types() -> list[str]:
    """The object types that occur, by name; one index step for each, whatever the number of rows."""
    types: list[str] = []
    next_type_query = select(func.min(AuditEntry.object_type))
    while object_type := db.session.scalar(
        next_type_query.where(AuditEntry.object_type > (types[-1] if types else ""))
    ):
        types.append(object_type)
    return types


def verify_chain(*, checkpoint: tuple[int, str] | None = None) -> ChainVerification:
    """Verify the whole chain and return the first row that does not fit.

    `checkpoint` is an earlier (id, hash) that was stored elsewhere: it detects a chain that was rewritten as a whole.
    """
    last_hash, row_count = audit_hash.GENESIS_HASH, 0
    for row in _iterate_rows():
        expected_id = row_count + 1
        computed_hash = audit_hash.next_hash(last_hash, **{name: getattr(row, name) for name in _HASHED_COLUMNS})
        problem = ""
        if row.id != expected_id:
            problem = f"Row {expected_id} is missing."
        elif computed_hash != row.hash:
            problem = f"Row {row.id} is not what was written, or not where it was."
        elif checkpoint and row.id == checkpoint[0] and row.hash != checkpoint[1]:
            problem = f"Row {row.id} has another hash than the one noted."
        if problem:
            return ChainVerification(row_count, last_hash, expected_id, problem)
        last_hash, row_count = computed_hash, expected_id
    return _verify_head(row_count, last_hash, checkpoint)


def _verify_head(row_count: int, last_hash: str, checkpoint: tuple[int, str] | None) -> ChainVerification:
    head = db.session.execute(select(AuditHead.last_id, AuditHead.hash)).one()
    last_id = max(head.last_id, checkpoint[0] if checkpoint else 0)
    if row_count < last_id:
        problem = f"Row {row_count + 1} is missing: {last_id:,} rows were written."
        return ChainVerification(row_count, last_hash, row_count + 1, problem)
    if (row_count, last_hash) != tuple(head):
        problem = "The head of the chain is not the hash of its last row."
        return ChainVerification(row_count, last_hash, head.last_id, problem)
    return ChainVerification(row_count, last_hash)


def _iterate_rows() -> Iterator[Any]:
    """All rows in order, without holding them in memory or a transaction open."""
    query, last_id = select(AuditEntry.__table__).order_by(AuditEntry.id).limit(_VERIFY_BATCH_ROWS), 0
    while rows := db.session.execute(query.where(AuditEntry.id > last_id)).all():
        yield from rows
        last_id = rows[-1].id


def _apply_filters(query: Select, filters: AuditFilters) -> Select:
    if filters.who:
        # by their names at that time, or by the folded search words of current users
        is_matching_user = AuditEntry.actor_id.in_(select(User.id).where(search.matches_user(filters.who)))
        is_matching_name = func.lower(AuditEntry.actor_name).contains(filters.who.lower(), autoescape=True)
        query = query.where(or_(is_matching_name, is_matching_user))
    if filters.what:
        query = query.where(AuditEntry.action.startswith(filters.what, autoescape=True))
    if filters.object_type:
        query = query.where(AuditEntry.object_type == filters.object_type)
    if filters.object_id:
        query = query.where(AuditEntry.object_id == filters.object_id)
    if filters.since:
        query = query.where(AuditEntry.at >= filters.since)
    if filters.until:
        query = query.where(AuditEntry.at < filters.until)
    return query
