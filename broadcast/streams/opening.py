"""Opening a stream: subscribe first, then replay what was missed, then CONNECTED, then live events.

(Replaying before subscribing would lose what is published in between.) If continuity cannot be proved, the client gets
RESET and reloads its list. Messages that were recalled or have expired meanwhile are not replayed.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from broadcast.domain import clock
from broadcast.domain.audience import EveryoneAudience, Viewer
from broadcast.domain.card import Card
from broadcast.domain.events import Cursor, Event, EventType, encode_compact_json, parse_cursor
from broadcast.store import log
from broadcast.store.inbox import Inbox, UnreadCount
from broadcast.store.live_inbox import open_inbox
from broadcast.streams import sse
from broadcast.streams.connection import Connection
from broadcast.streams.hub import Hub, StaleIdentity, StreamLimitExceeded
from broadcast.streams.replay_buffer import BufferedEvent
from broadcast.streams.sse import UnloggedEvent

INITIAL_UNREAD_LIMIT = 200  # unread messages sent to a client without a cursor
LOG_REPLAY_LIMIT = 200  # events read from the log if the replay buffer has not all; above that, a list is quicker
_MAX_CACHED_MESSAGES = 500  # of some kilobytes, encoded for clients without a cursor
_MAX_ATTEMPTS = 3  # if roles keep changing while a stream opens


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Who opens a stream, as read when the hub was at `as_of_seq`. It ends with the session, at `expires_at`."""

    viewer: Viewer
    session: str
    expires_at: datetime | None
    as_of_seq: int


def open_stream(
    hub: Hub,
    read_subscriber: Callable[[bool], Subscriber],
    *,
    cursor_text: str | None,
    representation: str,
    address: str,
    label: str,
) -> Connection:
    """Subscribe, then prepare what the client has missed since its cursor. Reads the database.

    `read_subscriber(is_retry)` returns the current identity, at first as it is remembered; on a retry it asks the
    database. Raises StreamLimitExceeded: over a limit, or BUSY.
    """
    resume_point = resolve_resume_point(cursor_text, hub)
    for attempt in range(_MAX_ATTEMPTS):
        subscriber, now = read_subscriber(attempt > 0), clock.now()
        with suppress(StaleIdentity):
            connection = hub.subscribe(
                subscriber.viewer,
                representation=representation,
                session=subscriber.session,
                address=address,
                label=label,
                after=resume_point.after,
                viewer_as_of_seq=subscriber.as_of_seq,
                now=now,
            )
            try:
                _prepare(hub, connection, subscriber, resume_point, now, is_from_memory=attempt == 0)
            except BaseException:
                hub.close(connection, "failed to open")
                raise
            return connection
    raise StreamLimitExceeded(UnloggedEvent.BUSY)


def _prepare(
    hub: Hub,
    connection: Connection,
    subscriber: Subscriber,
    resume_point: "ResumePoint",
    now: datetime,
    *,
    is_from_memory: bool,
) -> None:
    """Set when the stream ends and what it begins with. Raises StaleIdentity if an identity `is_from_memory` may be."""
    if subscriber.expires_at:  # a stream outlives the session or the token by no more than a heartbeat
        seconds_left = (subscriber.expires_at - now).total_seconds()
        connection.ends_at = min(connection.ends_at, time.monotonic() + seconds_left)
    # where only the count is asked, one statement that counts takes less time than one that reads receipts
    inbox = (open_inbox if resume_point.cursor is None else Inbox)(subscriber.viewer, now=now)
    unread = inbox.count_unread()
    if is_from_memory and not hub.has_delivered(Cursor(unread.epoch, unread.as_of)):
        raise StaleIdentity  # memory is as old as the hub, and the log has grown since
    connection.preamble = build_preamble(hub, connection, resume_point, inbox, unread, now=now)


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a client continues. `cursor` is None if it sent none; with `is_resumable` False it gets RESET."""

    cursor: Cursor | None
    is_resumable: bool

    @property
    def after(self) -> int:
        return self.cursor.seq if self.cursor and self.is_resumable else 0


def resolve_resume_point(text: str | None, hub: Hub) -> ResumePoint:
    """Validate a client's cursor. Unknown, future, and other epochs' cursors are not resumable. Never raises."""
    if not text:
        return ResumePoint(None, is_resumable=True)
    cursor, head = parse_cursor(text), hub.head
    is_of_this_epoch = cursor is not None and head is not None and cursor.epoch == head.epoch
    # the log is asked as well, because this worker's tailer may lag behind another's
    is_resumable = is_of_this_epoch and (cursor.seq <= head.seq or cursor.seq <= log.get_head().seq)
    return ResumePoint(cursor, is_resumable)


def build_preamble(
    hub: Hub, connection: Connection, resume_point: ResumePoint, inbox: Inbox, unread: UnreadCount, *, now: datetime
) -> Iterator[bytes]:
    """The preamble of a stream: replay or RESET, then CONNECTED. Reads the database now; iterating does not."""
    cursor = Cursor(hub.head.epoch, connection.skip_through)
    missed = _find_missed(hub, connection, resume_point, inbox, now)
    if missed is None:
        frames = iter([sse.encode_reset(cursor)])
    else:
        hub.report_delivered([buffered.event for buffered in missed], connection.viewer)
        frames = (hub.replay_buffer.get_frame(buffered, connection.representation) for buffered in missed)
    return _append_connected(frames, connection, str(cursor), unread, hub.limits.heartbeat_seconds)


def _append_connected(
    frames: Iterator[bytes], connection: Connection, cursor: str, unread: UnreadCount, heartbeat_seconds: float
) -> Iterator[bytes]:
    yield from frames
    data = {"connectionId": connection.id, "cursor": cursor}
    data |= {"unread": unread.count, "asOf": unread.as_of, "version": unread.version}
    data["heartbeatSeconds"] = heartbeat_seconds  # so that a client knows how long a silence is normal
    # CONNECTED is not in the log but has an id: otherwise a plain EventSource that is cut off before its first message
    # returns without a cursor and misses what was published meanwhile
    yield sse.encode_json_frame(UnloggedEvent.CONNECTED, data, id=cursor)


def _find_missed(
    hub: Hub, connection: Connection, resume_point: ResumePoint, inbox: Inbox, now: datetime
) -> list[BufferedEvent] | None:
    """The events to replay; None if continuity cannot be proved."""
    viewer, through = connection.viewer, connection.skip_through
    if not resume_point.is_resumable:
        return None
    if resume_point.cursor is None:
        unread = inbox.list_unread_backlog(through=through, limit=INITIAL_UNREAD_LIMIT)
        return [_to_message_event(hub.head.epoch, item.seq, item.card) for item in unread]
    missed = hub.replay_buffer.slice(resume_point.after, through)
    if missed is None:
        missed = _read_from_log(resume_point.after, through)
    if missed is None or any(_changes_roles(buffered.event, viewer) for buffered in missed):
        return None
    return _filter_for_viewer(missed, viewer, now)


@lru_cache(_MAX_CACHED_MESSAGES)
def _to_message_event(epoch: str, seq: int, card: Card) -> BufferedEvent:
    """The MESSAGE of a card, for every viewer who may see it: so each representation is encoded once."""
    payload_json = encode_compact_json(card.to_payload())
    return BufferedEvent(
        Event(seq, epoch, EventType.MESSAGE, card.id, EveryoneAudience(), payload_json, card.created_at)
    )


def _read_from_log(after: int, through: int) -> list[BufferedEvent] | None:
    """Everything in (after, through] if the log still has all of it and it is at most LOG_REPLAY_LIMIT, else None."""
    if through - after > LOG_REPLAY_LIMIT:
        return None
    events: list[Event] = []
    while after < through:
        page = log.read_events(after, through=through)
        if not page or page[0].seq != after + 1:
            return None  # retention has deleted the beginning
        events += page
        after = page[-1].seq
    return [BufferedEvent(event) for event in events]


def _filter_for_viewer(missed: Sequence[BufferedEvent], viewer: Viewer, now: datetime) -> list[BufferedEvent]:
    removed = {buffered.event.broadcast_id for buffered in missed if buffered.event.type is EventType.MESSAGE_REMOVED}
    return [
        buffered
        for buffered in missed
        if (event := buffered.event).is_for_clients
        and event.audience.includes(viewer)
        and (event.type is EventType.MESSAGE_REMOVED or not (event.broadcast_id in removed or _is_expired(event, now)))
    ]


def _is_expired(event: Event, now: datetime) -> bool:
    if '"expiresAt":null' in event.payload_json:  # thousands may be replayed; inside a text the quotes are escaped
        return False
    expires_at = event.payload.get("expiresAt")
    return expires_at is not None and clock.parse_rfc3339(expires_at) <= now


def _changes_roles(event: Event, viewer: Viewer) -> bool:
    """Whether the viewer's roles changed here, so that what they missed cannot be derived from these events alone.

    Whether they had a role that has changed since is not known, nor what an unreadable event changed.
    """
    return event.type in (EventType.ROLE_CHANGED, EventType.UNKNOWN) or (
        event.type is EventType.VIEWER_CHANGED and viewer.user_id in event.audience.ids
    )
