"""Writing receipts: many rows at once, on both databases. For evidence, the first time is kept."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import and_, bindparam, func, or_, select, text, update
from sqlalchemy.orm import Session

from broadcast.base.cooperative import Yielder, split_into_chunks
from broadcast.store.database import ROW_LOCK, build_insert, db
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
_receipts_table = Receipt.__table__


def lock_user(session: Session, user_id: int) -> None:
    """Lock this user's receipts until the transaction ends, so that what was read stays true."""
    session.execute(select(User.id).where(User.id == user_id).with_for_update(**ROW_LOCK))


def increment_inbox_version(session: Session, user_id: int, *, at: datetime) -> int:
    """Increment the user's inbox version; return it."""
    statement = update(User).where(User.id == user_id).returning(User.inbox_version)
    return session.scalar(
        statement.values(inbox_version=User.inbox_version + 1, inbox_changed_at=at).execution_options(
            synchronize_session=False
        )
    )


def upsert(session: Session, user_id: int, ids: Iterable[int], **columns: Any) -> None:
    """Set `columns` to these values for each broadcast, whatever they were."""
    statement = build_insert(session, _receipts_table).on_conflict_do_update(index_elements=_KEY_COLUMNS, set_=columns)
    rows = [{"broadcast_id": broadcast_id, "user_id": user_id} | columns for broadcast_id in sorted(ids)]
    _execute_in_chunks(session, statement, rows)


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
    is_unset = f"receipts.{column} IS NULL"
    if column == "read_at":
        is_unset += " OR receipts.read_at < (SELECT renewed_at FROM broadcasts WHERE id = receipts.broadcast_id)"
    statement = text(
        f"INSERT INTO receipts (broadcast_id, user_id, {column}) {_PAIR_QUERIES[session.get_bind().dialect.name]} "
        f"ON CONFLICT (broadcast_id, user_id) DO UPDATE SET {column} = excluded.{column} WHERE {is_unset}"
    ).bindparams(bindparam("at", at, UtcDateTime))
    # the same order for all writers, or two could deadlock
    for chunk in split_into_chunks(sorted(pairs), _CHUNK_PAIRS):
        options = RUN_IN_THREAD if len(chunk) > _INLINE_PAIRS else {}
        session.execute(statement, {"pairs": json.dumps(chunk)}, execution_options=options)


def advance_watermark(session: Session, user_id: int, *, through: int, at: datetime) -> None:
    """Count everything up to seq `through` as read by this user; never moves back."""
    session.execute(
        update(User)
        .where(User.id == user_id, User.read_through_seq < through)
        .values(read_through_seq=through, read_through_at=at)
        .execution_options(synchronize_session=False)
    )


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
    return session.scalar(select(User.read_through_seq).where(User.id == user_id))


def mark_archived_unread(session: Session, user_id: int, *, through: int, at: datetime) -> None:
    """Mark unread archived messages explicitly unread before a watermark passes them: nobody was shown them."""
    is_unread = and_(Receipt.read_at.is_(None), Receipt.unread_at.is_(None))
    passed_ids = select(Broadcast.id).where(
        Broadcast.seq <= through,
        Broadcast.seq > get_watermark(session, user_id),
        # otherwise it is back in the inbox
        or_(Broadcast.renewed_at.is_(None), Broadcast.renewed_at <= Receipt.archived_at),
    )
    session.execute(
        update(Receipt)
        .where(Receipt.user_id == user_id, Receipt.archived_at.is_not(None), is_unread)
        .where(Receipt.broadcast_id.in_(passed_ids))
        .values(unread_at=at)
        .execution_options(synchronize_session=False)
    )


def filter_marked_unread(session: Session, user_id: int, ids: Sequence[int]) -> list[int]:
    """Those of `ids` that this user's `unread_at` keeps unread."""
    query = select(Receipt.broadcast_id).where(Receipt.user_id == user_id, Receipt.unread_at.is_not(None))
    return sorted(set(ids) & set(session.scalars(query)))


def snapshot(session: Session, user_id: int, ids: Sequence[int], columns: Sequence[str]) -> dict[str, Any]:
    """The current values of these columns as JSON, for `restore`; empty for a message without a receipt."""
    rows: dict[int, list[str | None]] = {broadcast_id: [None] * len(columns) for broadcast_id in ids}
    query = select(Receipt.broadcast_id, *(getattr(Receipt, column) for column in columns))
    for chunk in split_into_chunks(ids, _CHUNK_ROWS):
        is_in_chunk = (Receipt.user_id == user_id, Receipt.broadcast_id.in_(chunk))
        for broadcast_id, *values in session.execute(query.where(*is_in_chunk)):
            rows[broadcast_id] = [value and value.isoformat() for value in values]
    return {"columns": list(columns), "rows": [[broadcast_id, *values] for broadcast_id, values in rows.items()]}


def restore(session: Session, user_id: int, before: dict[str, Any]) -> list[int]:
    """Restore the values of a `snapshot`; return the ids."""
    insert = build_insert(session, _receipts_table)
    columns = {name: insert.excluded[name] for name in before["columns"]}
    rows = []
    for broadcast_id, *values in before["rows"]:
        moments = [value and datetime.fromisoformat(value) for value in values]
        row = {"broadcast_id": broadcast_id, "user_id": user_id}
        rows.append(row | dict(zip(before["columns"], moments, strict=True)))
    _execute_in_chunks(session, insert.on_conflict_do_update(index_elements=_KEY_COLUMNS, set_=columns), rows)
    return [row[0] for row in before["rows"]]


def save_undo_step(session: Session, user_id: int, *, key: str, at: datetime, before: dict[str, Any]) -> None:
    """Store how to undo the newest action; it replaces the previous one."""
    values = {"key": key, "at": at, "before": before}
    statement = build_insert(session, UndoStep).values(user_id=user_id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["user_id"], set_=values))


def get_undo_step(session: Session, user_id: int) -> UndoStep | None:
    return session.get(UndoStep, user_id)


def _execute_in_chunks(session: Session, statement: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Execute row by row in the driver: building one large statement takes SQLAlchemy longer than running it.

    Lets other greenlets run between chunks.
    """
    for chunk in split_into_chunks(rows, _CHUNK_ROWS):
        session.execute(statement, chunk)


def filter_without_receipt(session: Session, user_id: int, ids: Sequence[int]) -> list[int]:
    """Those of `ids` for which this user has no receipt."""
    missing_ids = set(ids)
    for chunk in split_into_chunks(ids, _CHUNK_ROWS):
        is_in_chunk = (Receipt.user_id == user_id, Receipt.broadcast_id.in_(chunk))
        missing_ids -= set(session.scalars(select(Receipt.broadcast_id).where(*is_in_chunk)))
    return sorted(missing_ids)
