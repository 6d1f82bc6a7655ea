"""The log: appended to in the transaction that changes the state, read by every worker's tail and by replay.

`seq` comes from one counter row, updated in the same transaction. A plain sequence can become visible out of order (A takes
5, B takes 6 and commits, a reader moves on to 6, then A commits: 5 is never read); the row lock makes that impossible.
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
from broadcast.base.cooperative import Breath
from broadcast.domain.audience import Audience, Everyone, from_json
from broadcast.domain.events import Cursor, Event, EventType, encode
from broadcast.store.database import db
from broadcast.store.fast.bulk_insert import insert_many
from broadcast.store.models import LogEvent, LogHead

_log = structlog.get_logger(__name__)
PAGE = 200  # events in one read: a few milliseconds in which no stream of the worker is served
_TEXTS = [cast(column, Text).label(f"{column.key}_json") for column in (LogEvent.audience, LogEvent.payload)]
_COLUMNS = [column for column in LogEvent.__table__.c if column.name not in ("audience", "payload")] + _TEXTS
_SHORT = 1000  # characters of an audience that is worth remembering: the same few roles again and again


@dataclass(frozen=True, slots=True)
class Entry:
    """An event that has no number yet."""

    type: EventType
    broadcast_id: int | None
    audience: Audience
    payload: dict[str, Any]


def take_numbers(session: Session, count: int) -> Cursor:
    """Take the next `count` numbers and return the cursor of the first. Locks the log until this transaction ends.

    Take them as late in a transaction as possible: every other writer waits from here to the commit.
    """
    statement = (
        update(LogHead)
        .values(seq=LogHead.seq + count)
        .returning(LogHead.epoch, LogHead.seq)
        .execution_options(synchronize_session=False)
    )
    epoch, last = session.execute(statement).one()
    return Cursor(epoch, last - count + 1)


def append(session: Session, entries: Sequence[Entry], *, at: datetime, first: Cursor | None = None) -> list[Event]:
    """Append `entries` in order; return them numbered. `first` are numbers already taken by `take_numbers`.

    Lets other greenlets run when they are many.
    """
    if not entries:
        return []
    epoch, seq = first or take_numbers(session, len(entries))
    done_for, breath = correlation.current(), Breath()
    events = []
    for n, e in enumerate(entries):
        events.append(Event(seq + n, epoch, e.type, e.broadcast_id, e.audience, encode(e.payload), at, done_for))
        breath.take()
    insert_many(session, LogEvent.__table__, [_row(event) for event in events])
    return events


def head(*, anew: bool = False) -> Cursor:
    """The newest number that is committed; `anew`: by now, where SQLite shows one moment to all reads of a transaction.

    It ends what the session has begun, then.
    """
    if anew:
        db.session.rollback()
    return Cursor(*db.session.execute(select(LogHead.epoch, LogHead.seq)).one())


def oldest_seq() -> int:
    """The first number still kept; head + 1 when the log is empty."""
    oldest = db.session.scalar(select(func.min(LogEvent.seq)))
    return oldest if oldest is not None else head().seq + 1


def read(after: int, *, through: int | None = None, limit: int = PAGE) -> list[Event]:
    """Events with after < seq ≤ through, in order, at most `limit`."""
    query = select(*_COLUMNS).where(LogEvent.seq > after).order_by(LogEvent.seq).limit(limit)
    if through is not None:
        query = query.where(LogEvent.seq <= through)
    return [_event(row) for row in db.session.execute(query)]


def texts_of(broadcast_id: int, *, limit: int) -> list[Event]:
    """The newest texts of one broadcast, in order: what it was sent with, and its updates."""
    types = (EventType.MESSAGE.value, EventType.MESSAGE_UPDATED.value)
    query = select(*_COLUMNS).where(LogEvent.broadcast_id == broadcast_id, LogEvent.type.in_(types))
    return [_event(row) for row in db.session.execute(query.order_by(LogEvent.seq.desc()).limit(limit))][::-1]


def start_epoch(session: Session, *, instead_of: str | None = None) -> str | None:
    """Begin a new epoch, as after restoring an older database: every cursor given out before is answered with RESET.

    With `instead_of` only if that is still the epoch, so that many workers who see the same begin one; None: it was begun.
    """
    epoch = secrets.token_hex(4)
    statement = update(LogHead).values(epoch=epoch)
    if instead_of is not None:
        statement = statement.where(LogHead.epoch == instead_of)
    return epoch if session.execute(statement).rowcount else None


def holds(event: Event) -> bool:
    """Whether the log has this very event, or has forgotten it. False: another history took its number, or its end was lost."""
    row = db.session.execute(
        select(LogEvent.type, LogEvent.broadcast_id, LogEvent.at).where(LogEvent.seq == event.seq)
    ).one_or_none()
    if row is None:
        return event.seq < oldest_seq()
    kind, *others = row
    return others == [event.broadcast_id, event.at] and event.type in (kind, EventType.UNKNOWN)


@lru_cache
def _encoded(audience: Audience) -> str:
    return encode(audience.as_json())


@lru_cache
def _remembered(text: str) -> Audience:
    return from_json(json.loads(text))


def _audience(text: str) -> Audience:
    return _remembered(text) if len(text) <= _SHORT else from_json(json.loads(text))


def _row(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "epoch": event.epoch,
        "type": event.type.value,
        "broadcast_id": event.broadcast_id,
        "audience": encode(event.audience.as_json()) if event.audience.named else _encoded(event.audience),
        "payload": event.payload_json,
        "at": event.at,
        "correlation": event.correlation,
    }


@lru_cache  # once for each event, however often it is read
def _tell_unknown(seq: int, reason: str) -> None:
    _log.warning("log.unknown_event", seq=seq, reason=reason, effect="Streams begin anew at it; upgrade this node.")


def _event(row: Any) -> Event:
    """Never raises for what a newer version wrote: the readers of the log would stop at it for good."""
    try:
        kind, audience = EventType(row.type), _audience(row.audience_json)
    except ValueError as problem:
        _tell_unknown(row.seq, str(problem)[:200])
        kind, audience = EventType.UNKNOWN, Everyone()
    return Event(
        row.seq,
        row.epoch,
        kind,
        row.broadcast_id,
        audience,
        row.payload_json,
        row.at,
        row.correlation,
    )
