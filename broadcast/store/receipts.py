"""Writing receipts: many rows at once, on both databases. Of what is proof, the first moment stays."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import and_, func, literal_column, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from broadcast.base.cooperative import Breath
from broadcast.store.database import ROW_LOCK, db
from broadcast.store.models import Broadcast, Receipt, UndoStep, User

Mark = Literal["delivered_at", "first_seen_at", "read_at", "acked_at", "archived_at"]
_CHUNK = 200  # rows in one statement: about two milliseconds on SQLite
_KEY = ["broadcast_id", "user_id"]
_receipts = Receipt.__table__


def lock_person(session: Session, user_id: int) -> None:
    """Let nobody else change this person's receipts until the transaction ends, so that what is looked at now stays true."""
    session.execute(select(User.id).where(User.id == user_id).with_for_update(**ROW_LOCK))


def raise_version(session: Session, user_id: int, *, at: datetime) -> int:
    """Count one change of this person's receipts; return the number."""
    statement = update(User).where(User.id == user_id).returning(User.inbox_version)
    return session.scalar(
        statement.values(inbox_version=User.inbox_version + 1, inbox_changed_at=at).execution_options(
            synchronize_session=False
        )
    )


def put(session: Session, user_id: int, ids: Iterable[int], **columns: Any) -> None:
    """Set `columns` to these values for each broadcast, whatever they were."""
    statement = _insert(session)(_receipts).on_conflict_do_update(index_elements=_KEY, set_=columns)
    rows = [{"broadcast_id": broadcast_id, "user_id": user_id} | columns for broadcast_id in sorted(ids)]
    _execute_many(session, statement, rows)


def wake(session: Session, *, now: datetime, limit: int) -> list[tuple[int, int]]:
    """Take at most `limit` receipts whose snooze is over; return (user id, broadcast id) of those that come back thereby.

    Each is returned to one caller only: who sets `returned_at` has it. What was shown again meanwhile came back by that.
    """
    is_back_already = func.coalesce(Broadcast.renewed_at > Receipt.snoozed_at, False)
    due = (
        select(Receipt.broadcast_id, Receipt.user_id, is_back_already).where(Receipt.snoozed_until <= now).limit(limit)
    )
    due = due.join(Broadcast, Broadcast.id == Receipt.broadcast_id).order_by(Receipt.user_id, Receipt.broadcast_id)
    claimed, breath = [], Breath()
    for broadcast_id, user_id, is_back in session.execute(due).all():
        row = and_(Receipt.broadcast_id == broadcast_id, Receipt.user_id == user_id, Receipt.snoozed_until <= now)
        changes = {"snoozed_until": None} if is_back else {"snoozed_until": None, "returned_at": now}
        statement = update(Receipt).where(row).values(changes).execution_options(synchronize_session=False)
        if session.execute(statement).rowcount and not is_back:
            claimed.append((user_id, broadcast_id))
        breath.take()
    return claimed


def next_wake_at() -> datetime | None:
    """When the next snooze ends; None when nothing sleeps."""
    return db.session.scalar(select(func.min(Receipt.snoozed_until)))


def mark(session: Session, pairs: Iterable[tuple[int, int]], column: Mark, *, at: datetime) -> None:
    """Set `column` for each (broadcast id, user id) that has none yet; an earlier moment stays.

    Except that a broadcast shown again is read again: what was read before that does not count.
    """
    is_open = _receipts.c[column].is_(None)
    if column == "read_at":
        # as text: an upsert correlates nothing, and with the column the subquery would join every receipt
        renewed_at = select(Broadcast.renewed_at).where(Broadcast.id == literal_column("receipts.broadcast_id"))
        is_open = or_(is_open, _receipts.c.read_at < renewed_at.scalar_subquery())
    insert = _insert(session)(_receipts)
    marked = {column: insert.excluded[column]}
    statement = insert.on_conflict_do_update(index_elements=_KEY, set_=marked, where=is_open)
    # one order for all writers, or two of them could wait for each other for ever
    rows = [{"broadcast_id": broadcast_id, "user_id": user_id, column: at} for broadcast_id, user_id in sorted(pairs)]
    _execute_many(session, statement, rows)


def advance_watermark(session: Session, user_id: int, *, through: int, at: datetime) -> None:
    """Count everything up to seq `through` as read by this person; never goes back."""
    session.execute(
        update(User)
        .where(User.id == user_id, User.read_through_seq < through)
        .values(read_through_seq=through, read_through_at=at)
        .execution_options(synchronize_session=False)
    )


def move_watermark_back(session: Session, user_id: int, *, through: int, to: int) -> None:
    """Undo `advance_watermark`, unless it has moved on since."""
    session.execute(
        update(User)
        .where(User.id == user_id, User.read_through_seq == through)
        .values(read_through_seq=to)
        .execution_options(synchronize_session=False)
    )


def watermark(session: Session, user_id: int) -> int:
    return session.scalar(select(User.read_through_seq).where(User.id == user_id))


def keep_unread_out_of_sight(session: Session, user_id: int, *, through: int, at: datetime) -> None:
    """Mark archived messages that are unread so by hand, before a watermark passes them: nobody was shown them."""
    unread = and_(Receipt.read_at.is_(None), Receipt.unread_at.is_(None))
    passed = select(Broadcast.id).where(
        Broadcast.seq <= through,
        Broadcast.seq > watermark(session, user_id),
        or_(
            Broadcast.renewed_at.is_(None), Broadcast.renewed_at <= Receipt.archived_at
        ),  # else it is back in the inbox
    )
    session.execute(
        update(Receipt)
        .where(Receipt.user_id == user_id, Receipt.archived_at.is_not(None), unread)
        .where(Receipt.broadcast_id.in_(passed))
        .values(unread_at=at)
        .execution_options(synchronize_session=False)
    )


def unread_by_hand(session: Session, user_id: int, ids: Sequence[int]) -> list[int]:
    """Those of `ids` that this person's `unread_at` keeps unread."""
    query = select(Receipt.broadcast_id).where(Receipt.user_id == user_id, Receipt.unread_at.is_not(None))
    return sorted(set(ids) & set(session.scalars(query)))


def snapshot(session: Session, user_id: int, ids: Sequence[int], columns: Sequence[str]) -> dict[str, Any]:
    """What these columns are now, as JSON, for `restore`; a message without a receipt has nothing in them."""
    rows: dict[int, list[str | None]] = {broadcast_id: [None] * len(columns) for broadcast_id in ids}
    query = select(Receipt.broadcast_id, *(getattr(Receipt, column) for column in columns))
    breath = Breath()
    for start in range(0, len(ids), _CHUNK):
        chunk = query.where(Receipt.user_id == user_id, Receipt.broadcast_id.in_(ids[start : start + _CHUNK]))
        for broadcast_id, *values in session.execute(chunk):
            rows[broadcast_id] = [value and value.isoformat() for value in values]
        breath.take()
    return {"columns": list(columns), "rows": [[broadcast_id, *values] for broadcast_id, values in rows.items()]}


def restore(session: Session, user_id: int, before: dict[str, Any]) -> list[int]:
    """Put back what `snapshot` saw; return the ids."""
    insert = _insert(session)(_receipts)
    columns = {name: insert.excluded[name] for name in before["columns"]}
    rows = []
    for broadcast_id, *values in before["rows"]:
        moments = [value and datetime.fromisoformat(value) for value in values]
        row = {"broadcast_id": broadcast_id, "user_id": user_id}
        rows.append(row | dict(zip(before["columns"], moments, strict=True)))
    _execute_many(session, insert.on_conflict_do_update(index_elements=_KEY, set_=columns), rows)
    return [row[0] for row in before["rows"]]


def keep_step(session: Session, user_id: int, *, key: str, at: datetime, before: dict[str, Any]) -> None:
    """Remember how to take the newest act back; the one before it can no longer be."""
    values = {"key": key, "at": at, "before": before}
    statement = _insert(session)(UndoStep).values(user_id=user_id, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["user_id"], set_=values))


def step(session: Session, user_id: int) -> UndoStep | None:
    return session.get(UndoStep, user_id)


def _execute_many(session: Session, statement: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Row by row in the driver: a statement of all rows takes SQLAlchemy longer to write than the database to run.

    Lets other greenlets run between two slices of many.
    """
    breath = Breath()
    for start in range(0, len(rows), _CHUNK):
        session.execute(statement, rows[start : start + _CHUNK])
        breath.take()


def _insert(session: Session) -> Any:
    return sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert


def without_receipt(session: Session, user_id: int, ids: Sequence[int]) -> list[int]:
    """Those of `ids` for which this person has no receipt at all."""
    missing = set(ids)
    for start in range(0, len(ids), _CHUNK):
        some = Receipt.broadcast_id.in_(ids[start : start + _CHUNK])
        missing -= set(session.scalars(select(Receipt.broadcast_id).where(Receipt.user_id == user_id, some)))
    return sorted(missing)
