"""Each worker's copy of all live broadcasts, kept current from the log: what an inbox asks of every one of them.

A read compares the copy's position in the log with the log's head, in the same statement that reads the user's
receipts (`store.live_inbox`), so the copy is never older than the database. It holds no texts: those are in the card
cache. Beyond a bound there is no copy, and inboxes are read by the queries of `store.inbox`.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from gevent.lock import BoundedSemaphore
from sqlalchemy import Connection, Row, func, select

from broadcast.base.app_parts import AppPart
from broadcast.base.cooperative import Yielder, split_into_chunks
from broadcast.domain.audience import NO_USER_ID, Audience, Viewer
from broadcast.domain.events import CLIENT_EVENT_TYPES, Cursor, EventType
from broadcast.domain.lifecycle import Status
from broadcast.store.database import MAX_IN_VALUES, db
from broadcast.store.engine import count_connections_made
from broadcast.store.fast.card_cache import CardKey
from broadcast.store.models import (
    Broadcast,
    BroadcastExceptRole,
    BroadcastExceptUser,
    BroadcastRole,
    BroadcastUser,
    LogEvent,
    LogHead,
    build_audience,
)

MAX_BROADCASTS = 1_000  # live at a time; with more, no copy is kept: one query is then as quick as a walk over all
MAX_NAMED_USERS = 200_000  # users selected or excluded by name, in all of them together: 13 MB
MAX_CATCH_UP_EVENTS = 500  # behind by more, the whole copy is read anew
_RELOAD_INTERVAL_SECONDS = 5.0  # reading everything anew takes 40 µs per broadcast; until then queries serve
_RULE_CHANGES = (EventType.ROLE_CHANGED, EventType.UNKNOWN)  # may change the audience of any broadcast


@dataclass(frozen=True, slots=True)
class LiveBroadcast:
    """One live broadcast without its text. A `domain.inbox_state.LiveMessage`."""

    key: CardKey
    seq: int
    priority: str
    category: str | None
    requires_ack: bool
    ack_due_at: datetime | None
    ack_revision: int
    published_at: datetime | None
    expires_at: datetime | None
    renewed_at: datetime | None
    reminded_at: datetime | None
    audience: Audience
    named_user_ids: frozenset[int]  # by the audience

    @property
    def id(self) -> int:
        return self.key.id


class LiveSet:
    """All live broadcasts at one position of the log, newest first. Never changes.

    `newest_event` is the log's event at that position, None if it is not kept any more.
    """

    def __init__(self, head: Cursor, newest_event: Row | None, broadcasts: Iterable[LiveBroadcast]):
        self.head, self.newest_event = head, newest_event
        self.broadcasts = sorted(broadcasts, key=lambda broadcast: -broadcast.seq)
        self.ids = [broadcast.id for broadcast in self.broadcasts]
        self._naming = [broadcast for broadcast in self.broadcasts if broadcast.named_user_ids]
        self._by_roles: dict[frozenset[str], list[LiveBroadcast]] = {}

    def select_for(self, viewer: Viewer) -> list[LiveBroadcast]:
        """Those whose audience includes the viewer, newest first, whether or not they have expired since."""
        if any(viewer.user_id in broadcast.named_user_ids for broadcast in self._naming):
            return [broadcast for broadcast in self.broadcasts if broadcast.audience.includes(viewer)]
        if viewer.roles not in self._by_roles:
            others = Viewer(NO_USER_ID, viewer.roles)
            self._by_roles[viewer.roles] = [b for b in self.broadcasts if b.audience.includes(others)]
        return self._by_roles[viewer.roles]


class LiveBroadcasts:
    """Holds a worker's LiveSet. `max_broadcasts` 0 keeps none."""

    def __init__(self, *, max_broadcasts: int = MAX_BROADCASTS):
        self._max_broadcasts = max_broadcasts
        self._lock = BoundedSemaphore(1)  # one greenlet reads, the others wait for what it finds
        self._next_reload_at = 0.0
        self._checked_connection_count = 0  # `count_connections_made` at the last check against the log
        self.current: LiveSet | None = None

    def is_checked(self) -> bool:
        """Whether the set was compared with the log since the last new connection, which may be to another server."""
        return self._checked_connection_count == count_connections_made()

    def catch_up(self, head: Cursor) -> LiveSet | None:
        """Read what the log says has changed; return the set as of `head` or later. None: too many live broadcasts, or
        too many changes at present.
        """
        if self.current is None and time.monotonic() < self._next_reload_at:
            return None
        with self._lock:
            live = self.current
            is_late = live is None or live.head.epoch != head.epoch or live.head.seq < head.seq
            if not is_late and self.is_checked():
                return live
            with _open_snapshot() as connection:
                connection_count = count_connections_made()
                head = Cursor(*connection.execute(select(LogHead.epoch, LogHead.seq)).one())
                events = _read_new_events(connection, live, head) if live else None
                if events is None:
                    self.current = self._reload(connection, head)
                elif events:
                    changed_ids = {event.broadcast_id for event in events if event.type in CLIENT_EVENT_TYPES}
                    unchanged = [broadcast for broadcast in live.broadcasts if broadcast.id not in changed_ids]
                    self.current = self._keep(head, events[-1], unchanged + _load(connection, changed_ids))
            self._checked_connection_count = connection_count
            return self.current

    def _reload(self, connection: Connection, head: Cursor) -> LiveSet | None:
        if time.monotonic() < self._next_reload_at:
            return None
        self._next_reload_at = time.monotonic() + _RELOAD_INTERVAL_SECONDS
        count = select(func.count()).where(Broadcast.status == Status.ACTIVE)
        if connection.scalar(count) > self._max_broadcasts or not self._max_broadcasts:
            return None
        ids = connection.scalars(select(Broadcast.id).where(Broadcast.status == Status.ACTIVE)).all()
        newest_event = connection.execute(_events_query.where(LogEvent.seq == head.seq)).one_or_none()
        return self._keep(head, newest_event, _load(connection, ids))

    def _keep(self, head: Cursor, newest_event: Row | None, broadcasts: list[LiveBroadcast]) -> LiveSet | None:
        named_count = sum(len(broadcast.named_user_ids) for broadcast in broadcasts)
        is_too_large = len(broadcasts) > self._max_broadcasts or named_count > MAX_NAMED_USERS
        return None if is_too_large else LiveSet(head, newest_event, broadcasts)


def _open_snapshot() -> Connection:
    """A connection whose reads all see one moment."""
    is_sqlite = db.engine.dialect.name == "sqlite"  # there, a transaction does so in any case
    return (db.engine if is_sqlite else db.engine.execution_options(isolation_level="REPEATABLE READ")).connect()


def _read_new_events(connection: Connection, live: LiveSet, head: Cursor) -> Sequence[Row] | None:
    """The events after `live`. None if they do not tell everything that has changed.

    After a failover to a standby that was behind, the log may not have the newest event of `live`, or another one with
    its number. So that is read again.
    """
    count = head.seq - live.head.seq
    if head.epoch != live.head.epoch or not 0 <= count <= MAX_CATCH_UP_EVENTS:
        return None
    events = connection.execute(_events_query.where(LogEvent.seq >= live.head.seq).order_by(LogEvent.seq)).all()
    if live.newest_event is not None and events[:1] != [live.newest_event]:
        return None
    events = [event for event in events if event.seq > live.head.seq]
    return events if len(events) == count and all(event.type in _KNOWN_TYPES for event in events) else None


_events_query = select(LogEvent.seq, LogEvent.type, LogEvent.broadcast_id, LogEvent.at)
_KNOWN_TYPES = {event_type.value for event_type in EventType if event_type not in _RULE_CHANGES}
# a CardKey, the other columns that LiveBroadcast has, and what its audience is built from
_card_key_columns = [getattr(Broadcast, name) for name in CardKey._fields]
_value_columns = [getattr(Broadcast, field.name) for field in fields(LiveBroadcast)[1:-2]]
_query = select(*_card_key_columns, *_value_columns, Broadcast.audience_kind, Broadcast.match_all)


def _load(connection: Connection, ids: Iterable[int]) -> list[LiveBroadcast]:
    """Those of `ids` that are live. Lets other greenlets run."""
    yielder, loaded = Yielder(), []
    for chunk in split_into_chunks(sorted(ids), MAX_IN_VALUES):
        roles, users, except_roles, except_users = (
            _read_names(connection, table, chunk, yielder)
            for table in (BroadcastRole, BroadcastUser, BroadcastExceptRole, BroadcastExceptUser)
        )
        query = _query.where(Broadcast.status == Status.ACTIVE, Broadcast.id.in_(chunk))
        for id, revision, updated_at, *values, kind, match_all in connection.execute(query):
            exceptions = {"except_role_names": except_roles[id], "except_user_ids": except_users[id]}
            audience = build_audience(kind, roles[id], users[id], match_all=match_all, **exceptions)
            card_key = CardKey(id, revision, updated_at)
            loaded.append(LiveBroadcast(card_key, *values, audience, audience.named_user_ids))
            yielder.maybe_yield()
    return loaded


def _read_names(connection: Connection, table: Any, ids: Sequence[int], yielder: Yielder) -> dict[int, list]:
    """The names of roles or ids of users in a table of audiences, by broadcast."""
    names = defaultdict(list)
    for broadcast_id, name in connection.execute(select(*table.__table__.c).where(table.broadcast_id.in_(ids))):
        names[broadcast_id].append(name)
        yielder.maybe_yield()
    return names


LIVE_BROADCASTS = AppPart[LiveBroadcasts]("live_broadcasts")
