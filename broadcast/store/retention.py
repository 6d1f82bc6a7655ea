"""Forgetting: what ended long ago, in small batches, so that no writer waits for long."""

from datetime import datetime

from sqlalchemy import Table, delete, func, select
from sqlalchemy.orm import Session

from broadcast.domain.lifecycle import Status
from broadcast.store.database import db
from broadcast.store.models import Broadcast, EarlierAcknowledgement, LogEvent, Receipt, RevisionText
from broadcast.store.outside import EventSample

BATCH = 500


def drop_log(session: Session, *, before: datetime) -> int:
    """Delete the oldest events, up to BATCH of those before the first that is not old enough; return how many.

    Only ever a beginning of the log: what is left has no hole, and a cursor further back is answered with RESET.
    """
    first_kept = session.scalar(select(func.min(LogEvent.seq)).where(LogEvent.at >= before))
    oldest = session.scalar(select(func.min(LogEvent.seq)))
    if oldest is None:
        return 0
    until = oldest + BATCH if first_kept is None else min(oldest + BATCH, first_kept)
    return session.execute(delete(LogEvent).where(LogEvent.seq < until)).rowcount


def drop_samples(session: Session, *, before: datetime) -> int:
    """Delete kept events of sources that sent nothing since, up to BATCH; return how many."""
    old = select(EventSample.id).where(EventSample.at < before).limit(BATCH)
    return session.execute(delete(EventSample).where(EventSample.id.in_(old))).rowcount


def ended_ids(session: Session, *, before: datetime) -> list[int]:
    """Broadcasts that ended before that, the oldest first, at most BATCH."""
    ended = (Status.EXPIRED, Status.CANCELLED)
    query = select(Broadcast.id).where(Broadcast.status.in_(ended), _ended_at() < before)
    return list(session.scalars(query.order_by(Broadcast.id).limit(BATCH)))


def drop_broadcasts(session: Session, ids: list[int]) -> int:
    """Delete these broadcasts with all that hangs on them; return how many."""
    for table in _hanging_on_broadcasts():
        for column in table.columns:
            if any(key.column is Broadcast.__table__.c.id for key in column.foreign_keys):
                session.execute(delete(table).where(column.in_(ids)))
    return session.execute(delete(Broadcast.__table__).where(Broadcast.__table__.c.id.in_(ids))).rowcount


def drop_receipts(session: Session, *, before: datetime) -> int:
    """Delete receipts of broadcasts that ended before that, those of up to BATCH broadcasts; return how many."""
    ended = (Status.EXPIRED, Status.CANCELLED)
    of_some = (
        select(Receipt.broadcast_id)
        .join(Broadcast, Broadcast.id == Receipt.broadcast_id)
        .where(Broadcast.status.in_(ended), _ended_at() < before)
        .distinct()
        .limit(BATCH)
    )
    ids = list(session.scalars(of_some))
    if not ids:
        return 0
    for table in (EarlierAcknowledgement, RevisionText):  # of what was acknowledged, as long as by whom
        session.execute(delete(table).where(table.broadcast_id.in_(ids)))
    return session.execute(delete(Receipt).where(Receipt.broadcast_id.in_(ids))).rowcount


def _hanging_on_broadcasts() -> list[Table]:
    """Tables with a foreign key to broadcasts, those that others hang on last."""
    return [
        table
        for table in reversed(db.metadata.sorted_tables)
        if any(key.column is Broadcast.__table__.c.id for key in table.foreign_keys)
    ]


def _ended_at():
    return func.coalesce(Broadcast.ended_at, Broadcast.expires_at)
