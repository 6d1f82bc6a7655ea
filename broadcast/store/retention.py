"""Deleting old data: a bounded number of rows per call, so that no writer waits for long.

A broadcast is marked (`receipts_deleted_at`) before its first receipt is deleted, so that no statistics use the rest.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Table, and_, delete, exists, func, or_, select, tuple_, update
from sqlalchemy.orm import Session

from broadcast.domain.lifecycle import Status
from broadcast.store.database import db
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.models import (
    Broadcast,
    Delivery,
    EarlierAcknowledgement,
    LogEvent,
    PushSubscription,
    Receipt,
    RevisionText,
    UserSession,
    WebhookDelivery,
)
from broadcast.store.models.ingest import InboundEventSample

BATCH_ROWS = 500  # rows per transaction
BATCH_BROADCASTS = 50  # broadcasts per transaction: each has a text, its HTML and its words in the search index


def delete_log_events(session: Session, *, before: datetime) -> int:
    """Delete the oldest events, at most BATCH_ROWS and only up to the first that is new enough; return how many.

    Always a prefix of the log: what remains has no gaps, and an older cursor is answered with RESET.
    """
    oldest_seq = session.scalar(select(func.min(LogEvent.seq)))
    if oldest_seq is None:
        return 0
    is_in_batch = LogEvent.seq < oldest_seq + BATCH_ROWS
    first_kept_seq = session.scalar(select(func.min(LogEvent.seq)).where(is_in_batch, LogEvent.at >= before))
    end_seq = oldest_seq + BATCH_ROWS if first_kept_seq is None else first_kept_seq
    statement = delete(LogEvent.__table__).where(LogEvent.seq < end_seq)
    return session.execute(statement, execution_options=RUN_IN_THREAD).rowcount


def delete_samples(session: Session, *, before: datetime) -> int:
    """Delete event samples of sources that sent nothing since, at most BATCH_ROWS; return how many."""
    return _delete_batch(session, InboundEventSample.__table__, InboundEventSample.at < before)


def delete_webhook_deliveries(session: Session, *, before: datetime) -> int:
    """Delete webhook deliveries that ended before that, and their attempts, at most BATCH_ROWS; return how many."""
    return _delete_batch(session, WebhookDelivery.__table__, WebhookDelivery.ended_at < before)


def delete_unused_subscriptions(session: Session) -> int:
    """Delete push subscriptions of ended sessions, at most BATCH_ROWS; return how many."""
    ended_session_ids = select(UserSession.id).where(UserSession.ended_at.is_not(None))
    return _delete_batch(session, PushSubscription.__table__, PushSubscription.session_id.in_(ended_session_ids))


def list_ended_ids(*, before: datetime, must_have_receipts: bool = False) -> list[int]:
    """Broadcasts that ended before that, oldest first, at most BATCH_BROADCASTS; with `must_have_receipts` those that
    have receipts or deliveries.
    """
    ended_at = func.coalesce(Broadcast.ended_at, Broadcast.expires_at)
    is_ended = and_(Broadcast.status.in_((Status.EXPIRED, Status.CANCELLED)), ended_at < before)
    query = select(Broadcast.id).where(is_ended).order_by(Broadcast.id).limit(BATCH_BROADCASTS)
    if must_have_receipts:
        has_rows = (
            exists().where(table.broadcast_id == Broadcast.id) for table in (Receipt, Delivery, WebhookDelivery)
        )
        query = query.where(or_(*has_rows))
    return list(db.session.scalars(query))


def mark_receipts_deleted(session: Session, ids: Sequence[int], *, at: datetime) -> None:
    """Mark these broadcasts' receipts as deleted; an earlier mark is kept."""
    is_unmarked = and_(Broadcast.id.in_(ids), Broadcast.receipts_deleted_at.is_(None))
    session.execute(update(Broadcast.__table__).where(is_unmarked).values(receipts_deleted_at=at))


def delete_receipts(session: Session, ids: Sequence[int]) -> int:
    """Delete receipts of these broadcasts, at most BATCH_ROWS; return how many. Zero: none is left."""
    return _delete_batch(session, Receipt.__table__, Receipt.broadcast_id.in_(ids))


def delete_acknowledgements(session: Session, ids: Sequence[int]) -> int:
    """Delete the acknowledged texts and the deliveries of these broadcasts, at most BATCH_ROWS: they are kept as long
    as the receipts, at most.
    """
    tables = (EarlierAcknowledgement.__table__, RevisionText.__table__, Delivery.__table__, WebhookDelivery.__table__)
    return _delete_first_batch(session, [table.c.broadcast_id for table in tables], ids)


def delete_dependent_rows(session: Session, ids: Sequence[int]) -> int:
    """Delete other dependent rows of these broadcasts, at most BATCH_ROWS of one table; return how many. Zero: done."""
    return _delete_first_batch(session, _list_references(), ids)


def delete_broadcasts(session: Session, ids: Sequence[int]) -> int:
    """Delete broadcasts without dependent rows; return how many."""
    statement = delete(Broadcast.__table__).where(Broadcast.__table__.c.id.in_(ids))
    return session.execute(statement, execution_options=RUN_IN_THREAD).rowcount


def _delete_batch(session: Session, table: Table, condition: ColumnElement[bool]) -> int:
    key_columns = list(table.primary_key)
    batch_keys = select(*key_columns).where(condition).limit(BATCH_ROWS)
    is_in_batch = key_columns[0].in_(batch_keys) if len(key_columns) == 1 else tuple_(*key_columns).in_(batch_keys)
    return session.execute(delete(table).where(is_in_batch), execution_options=RUN_IN_THREAD).rowcount


def _delete_first_batch(session: Session, columns: Iterable[ColumnElement[int]], ids: Sequence[int]) -> int:
    """Delete a batch of the first table that has rows with these broadcast ids."""
    for column in columns:
        if deleted_count := _delete_batch(session, column.table, column.in_(ids)):
            return deleted_count
    return 0


def _list_references() -> list[ColumnElement[int]]:
    """Columns that refer to broadcasts, in tables before those that they depend on."""
    tables = reversed(db.metadata.sorted_tables)
    keys = (foreign_key for table in tables for foreign_key in table.foreign_keys)
    return [foreign_key.parent for foreign_key in keys if foreign_key.column is Broadcast.__table__.c.id]
