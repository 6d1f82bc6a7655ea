"""Forgetting what ended long ago: a bounded number of rows in each call, so that no writer waits for long.

A broadcast is marked (`receipts_deleted_at`) before its first receipt goes, so that nobody takes what is left for its figures.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, ForeignKey, Table, and_, delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from broadcast.domain.lifecycle import Status
from broadcast.store.database import IN_A_THREAD, db
from broadcast.store.models import Broadcast, EarlierAcknowledgement, LogEvent, Receipt, RevisionText
from broadcast.store.models.ingest import EventSample

BATCH = 500  # rows of one transaction
AT_ONCE = 50  # broadcasts of one transaction: each has a text, its HTML and its words in the index of search


def drop_log(session: Session, *, before: datetime) -> int:
    """Delete the oldest events, up to BATCH of those before the first that is not old enough; return how many.

    Only ever a beginning of the log: what is left has no hole, and a cursor further back is answered with RESET.
    """
    oldest = session.scalar(select(func.min(LogEvent.seq)))
    if oldest is None:
        return 0
    some = LogEvent.seq < oldest + BATCH
    first_kept = session.scalar(select(func.min(LogEvent.seq)).where(some, LogEvent.at >= before))
    until = oldest + BATCH if first_kept is None else first_kept
    statement = delete(LogEvent.__table__).where(LogEvent.seq < until)
    return session.execute(statement, execution_options=IN_A_THREAD).rowcount


def drop_samples(session: Session, *, before: datetime) -> int:
    """Delete kept events of sources that sent nothing since, up to BATCH; return how many."""
    return _drop(session, EventSample.__table__, EventSample.at < before)


def ended(*, before: datetime) -> list[int]:
    """Broadcasts that ended before that, the oldest first, at most AT_ONCE."""
    return list(db.session.scalars(select(Broadcast.id).where(_ended(before)).order_by(Broadcast.id).limit(AT_ONCE)))


def ended_with_receipts(*, before: datetime) -> list[int]:
    """Those of them that have receipts."""
    has_receipts = select(Receipt.broadcast_id).where(Receipt.broadcast_id == Broadcast.id).exists()
    query = select(Broadcast.id).where(_ended(before), has_receipts)
    return list(db.session.scalars(query.order_by(Broadcast.id).limit(AT_ONCE)))


def mark(session: Session, ids: Sequence[int], *, at: datetime) -> None:
    """Say of these broadcasts that their receipts are not kept; an earlier moment stays."""
    is_new = and_(Broadcast.id.in_(ids), Broadcast.receipts_deleted_at.is_(None))
    session.execute(update(Broadcast.__table__).where(is_new).values(receipts_deleted_at=at))


def drop_receipts(session: Session, ids: Sequence[int]) -> int:
    """Delete receipts of these broadcasts, at most BATCH; return how many. Zero: none is left."""
    return _drop(session, Receipt.__table__, Receipt.broadcast_id.in_(ids))


def drop_acknowledged(session: Session, ids: Sequence[int]) -> int:
    """Delete what was acknowledged of these broadcasts, at most BATCH rows: it is kept as long as by whom."""
    tables = (EarlierAcknowledgement.__table__, RevisionText.__table__)
    return next((dropped for table in tables if (dropped := _drop(session, table, table.c.broadcast_id.in_(ids)))), 0)


def drop_rest(session: Session, ids: Sequence[int]) -> int:
    """Delete what else hangs on these broadcasts, at most BATCH rows of one table; return how many. Zero: none is left."""
    hanging = (
        (table, key.parent)
        for table in _hanging_on_broadcasts()
        for key in table.foreign_keys
        if _is_to_broadcasts(key)
    )
    return next((dropped for table, column in hanging if (dropped := _drop(session, table, column.in_(ids)))), 0)


def drop_broadcasts(session: Session, ids: Sequence[int]) -> int:
    """Delete broadcasts on which nothing hangs any more; return how many."""
    statement = delete(Broadcast.__table__).where(Broadcast.__table__.c.id.in_(ids))
    return session.execute(statement, execution_options=IN_A_THREAD).rowcount


def _drop(session: Session, table: Table, condition: ColumnElement[bool]) -> int:
    key = list(table.primary_key)
    some = select(*key).where(condition).limit(BATCH)
    chosen = key[0].in_(some) if len(key) == 1 else tuple_(*key).in_(some)
    return session.execute(delete(table).where(chosen), execution_options=IN_A_THREAD).rowcount


def _hanging_on_broadcasts() -> list[Table]:
    """Tables with a foreign key to broadcasts, those that others hang on last."""
    return [table for table in reversed(db.metadata.sorted_tables) if any(map(_is_to_broadcasts, table.foreign_keys))]


def _is_to_broadcasts(key: ForeignKey) -> bool:
    return key.column is Broadcast.__table__.c.id


def _ended(before: datetime) -> ColumnElement[bool]:
    ended_at = func.coalesce(Broadcast.ended_at, Broadcast.expires_at)
    return and_(Broadcast.status.in_((Status.EXPIRED, Status.CANCELLED)), ended_at < before)
