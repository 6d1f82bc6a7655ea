"""Writing receipts: many rows at once, on both databases. For evidence, the first time is kept.

The statements of every mark are built once: building one takes SQLAlchemy longer than running it.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Literal

from sqlalchemy import and_, bindparam, func, or_, select, text, update
from sqlalchemy.orm import Session

from broadcast.base.cooperative import Yielder, split_into_chunks
from broadcast.store.database import ROW_LOCK, db, get_insert
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.models import Broadcast, Receipt, UndoStep, User
from broadcast.store.receipt_steps import is_seen_condition
from broadcast.store.types import UtcDateTime

ReceiptTimestamp = Literal["delivered_at", "first_seen_at", "read_at", "acked_at", "archived_at"]
_CHUNK_ROWS = 200  # rows per statement: about two milliseconds on SQLite
_CHUNK_PAIRS = 1000  # pairs per statement: some milliseconds in the thread, which holds SQLite's only write lock
_INLINE_PAIRS = 20  # so few are written sooner than the thread is told
# All pairs are one JSON array: as a row of parameters each, they took the driver longer than the database.
_PAIR_QUERIES = {
    "sqlite": "SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), :at FROM json_each(:pairs) WHERE true",
    "postgresql": """SELECT CAST(value->>0 AS bigint), CAST(value->>1 AS bigint), :at
                     FROM json_array_elements(CAST(:pairs AS json))""",
}
_KEY_COLUMNS = ["broadcast_id", "user_id"]
_receipts_table, _users_table = Receipt.__table__, User.__table__
_USER_ID = bindparam("of_user")
_is_user = _users_table.c.id == _USER_ID
_lock_query = select(_users_table.c.id).where(_is_user).with_for_update(**ROW_LOCK)
_version_update = (
    update(_users_table)
    .where(_is_user)
    .values(inbox_version=_users_table.c.inbox_version + 1, inbox_changed_at=bindparam("at"))
    .returning(_users_table.c.inbox_version)
)
_watermark_query = select(_users_table.c.read_through_seq).where(_is_user)
_watermark_update = (
    update(_users_table)
    .where(_is_user, _users_table.c.read_through_seq < bindparam("through"))
    .values(read_through_seq=bindparam("through"), read_through_at=bindparam("at"))
)
_marked_unread_query = select(Receipt.broadcast_id).where(Receipt.user_id == _USER_ID, Receipt.unread_at.is_not(None))
_passed_ids = select(Broadcast.id).where(
    Broadcast.seq <= bindparam("through"),
    Broadcast.seq > _watermark_query.scalar_subquery(),
    # otherwise it is back in the inbox
    or_(Broadcast.renewed_at.is_(None), Broadcast.renewed_at <= _receipts_table.c.archived_at),
)
_archived_unread_update = (
    update(_receipts_table)
    .where(_receipts_table.c.user_id == _USER_ID, _receipts_table.c.archived_at.is_not(None))
    .where(_receipts_table.c.read_at.is_(None), _receipts_table.c.unread_at.is_(None))
    .where(_receipts_table.c.broadcast_id.in_(_passed_ids))
    .values(unread_at=bindparam("at"))
)


def lock_user(session: Session, user_id: int) -> None:
    """Lock this user's receipts until the transaction ends, so that what was read stays true."""
    session.connection().execute(_lock_query, {"of_user": user_id})


def increment_inbox_version(session: Session, user_id: int, *, at: datetime) -> int:
    """Increment the user's inbox version; return it."""
    return session.connection().execute(_version_update, {"of_user": user_id, "at": at}).scalar()


def upsert(session: Session, user_id: int, ids: Iterable[int], **columns: Any) -> None:
    """Set `columns` to these values for each broadcast, whatever they were."""
    rows = [{"broadcast_id": broadcast_id, "user_id": user_id} | columns for broadcast_id in sorted(ids)]
    _execute_in_chunks(session, _build_upsert(get_insert(session), tuple(columns)), rows)


@cache
def _build_upsert(insert: Callable[[Any], Any], columns: tuple[str, ...]) -> Any:
    statement = insert(_receipts_table)
    new_values = {column: statement.excluded[column] for column in columns}
    return statement.on_conflict_do_update(index_elements=_KEY_COLUMNS, set_=new_values)


def return_snoozed(session: Session, *, now: datetime, limit: int) -> list[tuple[int, int]]:
    """Return at most `limit` receipts from an ended snooze; return the (user id, broadcast id) of those that reappear.

    Each goes to one caller only: the one that sets `returned_at`. A message shown again meanwhile reappeared by that.
    """
    is_shown_again = func.coalesce(Broadcast.renewed_at > Receipt.snoozed_at, False)
    due_query = (
        select(Receipt.broadcast_id, Receipt.user_id, is_shown_again).where(Receipt.snoozed_until <= now).limit(limit)
    )
    due_query = due_query.join(Broadcast, Broadcast.id == Receipt.broadcast_id).order_by(
        Receipt.user_id, Receipt.broadcast_id
    )
    returned, yielder = [], Yielder()
    for broadcast_id, user_id, has_returned_already in session.execute(due_query).all():
        is_due_receipt = and_(
            Receipt.broadcast_id == broadcast_id, Receipt.user_id == user_id, Receipt.snoozed_until <= now
        )
        changes = {"snoozed_until": None} if has_returned_already else {"snoozed_until": None, "returned_at": now}
        statement = update(Receipt).where(is_due_receipt).values(changes).execution_options(synchronize_session=False)
        if session.execute(statement).rowcount and not has_returned_already:
            returned.append((user_id, broadcast_id))
        yielder.maybe_yield()
    return returned


def get_next_snooze_end() -> datetime | None:
    """When the next snooze ends; None when nothing is snoozed."""
    return db.session.scalar(select(func.min(Receipt.snoozed_until)))


def set_timestamp(
    session: Session, pairs: Iterable[tuple[int, int]], column: ReceiptTimestamp, *, at: datetime
) -> None:
    """Set `column` for each (broadcast id, user id) that has none yet; an earlier time is kept.

    Exception: a reading from before the broadcast was shown again is replaced.
    """
    statement = _build_timestamp_upsert(session.get_bind().dialect.name, column)
    # the same order for all writers, or two could deadlock
    for chunk in split_into_chunks(sorted(pairs), _CHUNK_PAIRS):
        options = RUN_IN_THREAD if len(chunk) > _INLINE_PAIRS else {}
        session.connection().execute(statement, {"pairs": json.dumps(chunk), "at": at}, execution_options=options)


@cache
def _build_timestamp_upsert(dialect_name: str, column: ReceiptTimestamp) -> Any:
    is_unset = f"receipts.{column} IS NULL"
    if column == "read_at":
        is_unset += " OR receipts.read_at < (SELECT renewed_at FROM broadcasts WHERE id = receipts.broadcast_id)"
    return text(
        f"INSERT INTO receipts (broadcast_id, user_id, {column}) {_PAIR_QUERIES[dialect_name]} "
        f"ON CONFLICT (broadcast_id, user_id) DO UPDATE SET {column} = excluded.{column} WHERE {is_unset}"
    ).bindparams(bindparam("at", type_=UtcDateTime))


def advance_watermark(session: Session, user_id: int, *, through: int, at: datetime) -> None:
    """Count everything up to seq `through` as read by this user; never moves back."""
    session.connection().execute(_watermark_update, {"of_user": user_id, "through": through, "at": at})


def revert_watermark(session: Session, user_id: int, *, through: int, to: int) -> None:
    """Undo `advance_watermark`, unless the watermark has moved on since."""
    session.execute(
        update(User)
        .where(User.id == user_id, User.read_through_seq == through)
        .values(read_through_seq=to)
        .execution_options(synchronize_session=False)
    )


def save_seen_by_watermark(session: Session, broadcast: Broadcast) -> None:
    """Write into the receipts who has seen a broadcast only by marking everything as read.

    Call it before the broadcast is shown again: it is then above every watermark, but it was still seen.
    """
    marked_query = (
        select(Receipt.user_id, User.read_through_at)
        .join(User, User.id == Receipt.user_id)
        .where(Receipt.broadcast_id == broadcast.id, ~is_seen_condition(), User.read_through_seq >= broadcast.seq)
        .order_by(Receipt.user_id)  # the order in which everybody locks receipts
        .with_for_update(of=Receipt, **ROW_LOCK)
    )
    if broadcast.renewed_at is not None:
        marked_query = marked_query.where(User.read_through_at >= broadcast.renewed_at)
    rows = session.execute(marked_query, execution_options=RUN_IN_THREAD).all()
    statement = update(_receipts_table).values(first_seen_at=bindparam("seen_at"))
    statement = statement.where(
        _receipts_table.c.broadcast_id == broadcast.id, _receipts_table.c.user_id == bindparam("seen_by")
    )
    _execute_in_chunks(session, statement, [{"seen_by": user_id, "seen_at": marked_at} for user_id, marked_at in rows])


def get_watermark(session: Session, user_id: int) -> int:
    return session.connection().execute(_watermark_query, {"of_user": user_id}).scalar()


def mark_archived_unread(session: Session, user_id: int, *, through: int, at: datetime) -> None:
    """Mark unread archived messages explicitly unread before a watermark passes them: nobody was shown them."""
    session.connection().execute(_archived_unread_update, {"of_user": user_id, "through": through, "at": at})


def filter_marked_unread(session: Session, user_id: int, ids: Sequence[int]) -> list[int]:
    """Those of `ids` that this user's `unread_at` keeps unread."""
    return sorted(set(ids) & set(session.connection().execute(_marked_unread_query, {"of_user": user_id}).scalars()))


def snapshot(session: Session, user_id: int, ids: Sequence[int], columns: Sequence[str]) -> dict[str, Any]:
    """The current values of these columns as JSON, for `restore`; empty for a message without a receipt."""
    rows: dict[int, list[str | None]] = {broadcast_id: [None] * len(columns) for broadcast_id in ids}
    query = _build_snapshot_query(tuple(columns))
    for chunk in split_into_chunks(ids, _CHUNK_ROWS):
        for broadcast_id, *values in session.connection().execute(query, {"of_user": user_id, "ids": chunk}):
            rows[broadcast_id] = [value and value.isoformat() for value in values]
    return {"columns": list(columns), "rows": [[broadcast_id, *values] for broadcast_id, values in rows.items()]}


@cache
def _build_snapshot_query(columns: tuple[str, ...]) -> Any:
    query = select(_receipts_table.c.broadcast_id, *(_receipts_table.c[column] for column in columns))
    is_in_chunk = _receipts_table.c.broadcast_id.in_(bindparam("ids", expanding=True))
    return query.where(_receipts_table.c.user_id == _USER_ID, is_in_chunk)


def restore(session: Session, user_id: int, before: dict[str, Any]) -> list[int]:
    """Restore the values of a `snapshot`; return the ids."""
    rows = []
    for broadcast_id, *values in before["rows"]:
        moments = [value and datetime.fromisoformat(value) for value in values]
        row = {"broadcast_id": broadcast_id, "user_id": user_id}
        rows.append(row | dict(zip(before["columns"], moments, strict=True)))
    _execute_in_chunks(session, _build_upsert(get_insert(session), tuple(before["columns"])), rows)
    return [row[0] for row in before["rows"]]


def save_undo_step(session: Session, user_id: int, *, key: str, at: datetime, before: dict[str, Any]) -> None:
    """Store how to undo the newest action; it replaces the previous one."""
    row = {"user_id": user_id, "key": key, "at": at, "before": before}
    session.connection().execute(_build_undo_upsert(get_insert(session)), row)


@cache
def _build_undo_upsert(insert: Callable[[Any], Any]) -> Any:
    statement = insert(UndoStep.__table__)
    new_values = {column: statement.excluded[column] for column in ("key", "at", "before")}
    return statement.on_conflict_do_update(index_elements=["user_id"], set_=new_values)


def get_undo_step(session: Session, user_id: int) -> UndoStep | None:
    return session.get(UndoStep, user_id)


def _execute_in_chunks(session: Session, statement: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Execute row by row in the driver: building one large statement takes SQLAlchemy longer than running it.

    Lets other greenlets run between chunks.
    """
    for chunk in split_into_chunks(rows, _CHUNK_ROWS):
        session.connection().execute(statement, chunk)


def filter_without_receipt(session: Session, user_id: int, ids: Sequence[int]) -> list[int]:
    """Those of `ids` for which this user has no receipt."""
    missing_ids, query = set(ids), _build_snapshot_query(())
    for chunk in split_into_chunks(ids, _CHUNK_ROWS):
        missing_ids -= set(session.connection().execute(query, {"of_user": user_id, "ids": chunk}).scalars())
    return sorted(missing_ids)
