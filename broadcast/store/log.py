"""The log: appended to in the transaction that changes the state, read by every worker's tailer and by replay.

`seq` comes from one counter row, updated in the same transaction. A plain sequence can become visible out of order (A
takes 5, B takes 6 and commits, a reader moves on to 6, then A commits: 5 is never read); the row lock makes that
impossible.
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import structlog
from sqlalchemy import Text, cast, func, select, update
from sqlalchemy.orm import Session

from broadcast.base import correlation
from broadcast.base.cooperative import Yielder
from broadcast.domain.audience import Audience, EveryoneAudience, parse_audience
from broadcast.domain.events import Cursor, Event, EventType, encode_compact_json
from broadcast.store.database import db
from broadcast.store.fast.bulk_insert import insert_many
from broadcast.store.models import LogEvent, LogHead

_log = structlog.get_logger(__name__)
PAGE_EVENTS = 200  # events per read: a few milliseconds in which no stream of the worker is served
# in the order of Event's fields; JSON as the text that is stored
_COLUMNS = (
    *(LogEvent.seq, LogEvent.epoch, LogEvent.type, LogEvent.broadcast_id),
    *(cast(LogEvent.audience, Text), cast(LogEvent.payload, Text)),
    *(LogEvent.at, LogEvent.correlation, LogEvent.traceparent),
)
_MAX_CACHED_AUDIENCE_CHARACTERS = 1000  # characters of an audience worth caching: the same few roles again and again


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event without a seq yet."""

    type: EventType
    broadcast_id: int | None
    audience: Audience
    payload: dict[str, Any]


def reserve_seqs(session: Session, count: int) -> Cursor:
    """Reserve the next `count` seqs and return the cursor of the first. Locks the log until this transaction ends.

    Call it as late in a transaction as possible: every other writer waits from here to the commit.
    """
    statement = update(LogHead).values(seq=LogHead.seq + count).returning(LogHead.epoch, LogHead.seq)
    epoch, last_seq = session.execute(statement.execution_options(synchronize_session=False)).one()
    return Cursor(epoch, last_seq - count + 1)


def append(
    session: Session, new_events: Sequence[NewEvent], *, at: datetime, first_cursor: Cursor | None = None
) -> list[Event]:
    """Append `new_events` in order; return them numbered. `first_cursor` is the result of an earlier `reserve_seqs`.

    Lets other greenlets run for long lists.
    """
    if not new_events:
        return []
    epoch, seq = first_cursor or reserve_seqs(session, len(new_events))
    correlation_id, traceparent, yielder = correlation.current_id(), correlation.current_traceparent(), Yielder()
    events = []
    for index, new_event in enumerate(new_events):
        fields = (new_event.type, new_event.broadcast_id, new_event.audience, encode_compact_json(new_event.payload))
        events.append(Event(seq + index, epoch, *fields, at, correlation_id, traceparent))
        yielder.maybe_yield()
    insert_many(session, LogEvent.__table__, [_to_row(event) for event in events])
    return events


_head_query = select(LogHead.epoch, LogHead.seq)


def get_head(*, should_refresh: bool = False) -> Cursor:
    """The newest committed seq. SQLite shows the same snapshot to all reads of a transaction.

    With `should_refresh`, the session's transaction ends first, so that the result is current.
    """
    if should_refresh:
        db.session.rollback()
    return Cursor(*db.session.connection().execute(_head_query).one())


def get_oldest_seq() -> int:
    """The oldest seq still kept; head + 1 when the log is empty."""
    oldest_seq = db.session.scalar(select(func.min(LogEvent.seq)))
    return oldest_seq if oldest_seq is not None else get_head().seq + 1


def read_events(after: int, *, through: int | None = None, limit: int = PAGE_EVENTS) -> list[Event]:
    """Events with after < seq ≤ through, in order, at most `limit`."""
    query = select(*_COLUMNS).where(LogEvent.seq > after).order_by(LogEvent.seq).limit(limit)
    if through is not None:
        query = query.where(LogEvent.seq <= through)
    return [_to_event(row) for row in db.session.execute(query)]


def list_text_events(broadcast_id: int, *, limit: int) -> list[Event]:
    """The newest texts of one broadcast, in order: its MESSAGE and its updates."""
    types = (EventType.MESSAGE.value, EventType.MESSAGE_UPDATED.value)
    query = select(*_COLUMNS).where(LogEvent.broadcast_id == broadcast_id, LogEvent.type.in_(types))
    return [_to_event(row) for row in db.session.execute(query.order_by(LogEvent.seq.desc()).limit(limit))][::-1]


def start_epoch(session: Session, *, expected_epoch: str | None = None) -> str | None:
    """Start a new epoch, as after restoring an older database: every earlier cursor is answered with RESET.

    With `expected_epoch` only if that is still the epoch, so that many workers start only one; otherwise returns None.
    """
    epoch = secrets.token_hex(4)
    statement = update(LogHead).values(epoch=epoch)
    if expected_epoch is not None:
        statement = statement.where(LogHead.epoch == expected_epoch)
    return epoch if session.execute(statement).rowcount else None


def has_event(event: Event) -> bool:
    """Whether the log has this event, or has deleted it. False: its seq is another event's, or the end was lost."""
    query = select(LogEvent.type, LogEvent.broadcast_id, LogEvent.at).where(LogEvent.seq == event.seq)
    row = db.session.execute(query).one_or_none()
    if row is None:
        return event.seq < get_oldest_seq()
    type_name, *stored_values = row
    return stored_values == [event.broadcast_id, event.at] and event.type in (type_name, EventType.UNKNOWN)


@lru_cache
def _encode_cached_audience(audience: Audience) -> str:
    return encode_compact_json(audience.to_json())


@lru_cache
def _parse_cached_audience(text: str) -> Audience:
    return parse_audience(json.loads(text))


def _parse_audience(text: str) -> Audience:
    is_short = len(text) <= _MAX_CACHED_AUDIENCE_CHARACTERS
    return _parse_cached_audience(text) if is_short else parse_audience(json.loads(text))


def _encode_audience(audience: Audience) -> str:
    return encode_compact_json(audience.to_json()) if audience.named_user_ids else _encode_cached_audience(audience)


def _to_row(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "epoch": event.epoch,
        "type": event.type.value,
        "broadcast_id": event.broadcast_id,
        "audience": _encode_audience(event.audience),
        "payload": event.payload_json,
        "at": event.at,
        "correlation": event.correlation_id,
        "traceparent": event.traceparent,
    }


@lru_cache  # once per event, however often it is read
def _warn_unknown_event(seq: int, reason: str) -> None:
    _log.warning("log.unknown_event", seq=seq, reason=reason, effect="Streams begin anew at it; upgrade this node.")


def _to_event(row: Any) -> Event:
    """Never raises for rows written by a newer version: the readers of the log would be stuck there for good."""
    seq, epoch, type_name, broadcast_id, audience_text, *others = row
    try:
        event_type, audience = EventType(type_name), _parse_audience(audience_text)
    except ValueError as problem:
        _warn_unknown_event(seq, str(problem)[:200])
        event_type, audience = EventType.UNKNOWN, EveryoneAudience()
    return Event(seq, epoch, event_type, broadcast_id, audience, *others)
