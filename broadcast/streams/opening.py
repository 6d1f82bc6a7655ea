"""How a stream begins: subscribe first, then what was missed, then CONNECTED, then live.

(Replay and then subscribe loses what is published in between.) Continuity that cannot be proved gives RESET: the page loads
its list. A message that was recalled or has expired since is not shown once more on the way to its removal.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from broadcast.domain import clock
from broadcast.domain.audience import Viewer, users
from broadcast.domain.events import Cursor, Event, EventType, encode, parse_cursor
from broadcast.store import inbox, log
from broadcast.store.inbox import Unread
from broadcast.streams import sse
from broadcast.streams.connection import Connection
from broadcast.streams.hub import Hub

PENDING = 200  # unread messages sent to a client that brings no cursor
FROM_LOG = (
    200  # events read from the database for a client whom memory cannot serve; beyond, loading its list is quicker
)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a client wants to go on. `cursor` is None for a client without one; `honest` False when RESET is the answer."""

    cursor: Cursor | None
    honest: bool

    @property
    def after(self) -> int:
        return self.cursor.seq if self.cursor and self.honest else 0


def read_start(text: str | None, hub: Hub) -> Start:
    """Judge a client's cursor. Unknown, future, and other epochs' cursors are not honest; never raises for input."""
    if not text:
        return Start(None, honest=True)
    cursor, head = parse_cursor(text), hub.head
    if cursor is None or head is None or cursor.epoch != head.epoch:
        return Start(cursor, honest=False)
    if cursor.seq > head.seq and cursor.seq > log.head().seq:  # this worker's tail may lag behind another's
        return Start(cursor, honest=False)
    return Start(cursor, honest=True)


def opening(hub: Hub, connection: Connection, start: Start, *, unread: Unread, now: datetime) -> Iterator[bytes]:
    """The prelude of a subscribed stream: replay or RESET, then CONNECTED. Reads the database now; iterating does not."""
    epoch, through = hub.head.epoch, connection.skip_through
    cursor = str(Cursor(epoch, through))
    frames = _missed(hub, connection, start, through, now) if start.honest else None
    if frames is None:
        frames = iter([sse.json_frame("RESET", {"cursor": cursor}, id=cursor)])
    return _then_connected(frames, connection, cursor, unread, hub.limits.heartbeat_seconds)


def _then_connected(
    frames: Iterator[bytes], connection: Connection, cursor: str, unread: Unread, heartbeat_seconds: float
) -> Iterator[bytes]:
    yield from frames
    data = {"connectionId": connection.id, "cursor": cursor}
    data |= {"unread": unread.count, "asOf": unread.as_of, "version": unread.version}
    data["heartbeatSeconds"] = heartbeat_seconds  # so that a client knows when silence is no silence of the server's
    # the id here too, though CONNECTED is not in the log: a plain EventSource that is cut off before its first message
    # would otherwise come back without a cursor and miss what was published meanwhile
    yield sse.json_frame("CONNECTED", data, id=cursor)


def _missed(hub: Hub, connection: Connection, start: Start, through: int, now: datetime) -> Iterator[bytes] | None:
    viewer, encode = connection.viewer, hub.encoders[connection.representation]
    if start.cursor is None:
        return iter([encode(event) for event in _pending(hub, viewer, through, now)])
    remembered = hub.memory.recall(start.after, through)
    if remembered is not None:
        kept = set(map(id, _wanted([r.event for r in remembered], viewer, now)))
        if any(_changes(r.event, viewer) for r in remembered):
            return None
        chosen = [r for r in remembered if id(r.event) in kept]
        hub.tell_delivered([r.event for r in chosen], viewer)
        return (hub.memory.frame(r, connection.representation) for r in chosen)
    events = _from_log(start.after, through, most=FROM_LOG)
    if events is None or any(_changes(event, viewer) for event in events):
        return None
    wanted = _wanted(events, viewer, now)
    hub.tell_delivered(wanted, viewer)
    return iter([encode(event) for event in wanted])


def _pending(hub: Hub, viewer: Viewer, through: int, now: datetime) -> list[Event]:
    epoch = hub.head.epoch
    events = []
    for item in inbox.pending(viewer, now=now, through=through, limit=PENDING):
        card = item.card
        events.append(
            Event(item.seq, epoch, EventType.MESSAGE, card.id, users([viewer.user_id]), encode(card.as_payload()), now)
        )
    hub.tell_delivered(events, viewer)
    return events


def _from_log(after: int, through: int, *, most: int) -> list[Event] | None:
    """Everything in (after, through] if the log still has all of it and it is not too much, else None."""
    if through - after > most:
        return None
    events: list[Event] = []
    while after < through:
        page = log.read(after, through=through)
        if not page or page[0].seq != after + 1:
            return None  # retention has taken the beginning
        events += page
        after = page[-1].seq
    return events


def _wanted(events: Sequence[Event], viewer: Viewer, now: datetime) -> list[Event]:
    removed = {event.broadcast_id for event in events if event.type is EventType.MESSAGE_REMOVED}
    return [
        event
        for event in events
        if event.is_for_clients
        and event.audience.includes(viewer)
        and (event.type is EventType.MESSAGE_REMOVED or not (event.broadcast_id in removed or _is_over(event, now)))
    ]


def _is_over(event: Event, now: datetime) -> bool:
    if '"expiresAt":null' in event.payload_json:  # thousands may be replayed; inside a text the quotes have backslashes
        return False
    expires_at = event.payload.get("expiresAt")
    return expires_at is not None and clock.from_wire(expires_at) <= now


def _changes(event: Event, viewer: Viewer) -> bool:
    """The person's roles changed here, so what they missed cannot be told from these events alone.

    Whether they had a role that has changed since nobody knows any more, nor what an event says that cannot be read.
    """
    return event.type in (EventType.ROLE_CHANGED, EventType.UNKNOWN) or (
        event.type is EventType.VIEWER_CHANGED and viewer.user_id in event.audience.ids
    )
