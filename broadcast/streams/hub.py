"""The hub: all open streams of this worker, their fan-out, heartbeats, opening and closing.

Everything runs in one thread. A method that may let other greenlets run says so; between two such points the indexes do
not change.
"""

import math
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, KeysView, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import gevent
from gevent.event import Event as GeventEvent

from broadcast.base.app_parts import AppPart
from broadcast.base.cooperative import yield_to_loop
from broadcast.domain.audience import NO_USER_ID, Viewer
from broadcast.domain.events import Cursor, Event, EventType
from broadcast.streams import sse
from broadcast.streams.connection import Connection, Transport
from broadcast.streams.connection_index import HEARTBEAT_SLOTS, ConnectionIndex
from broadcast.streams.control_events import ends_stream, invalidates_identity
from broadcast.streams.replay_buffer import BufferedEvent, Encoder, ReplayBuffer, with_reset_fallback
from broadcast.streams.sse import UnloggedEvent

SEND_BATCH_SIZE = 128  # sends between two time checks
FANOUT_SLICE_SECONDS = 0.003  # after sending for this long, other greenlets run
LAGGING_POLL_SECONDS, LAGGING_TIMEOUT_SECONDS = 0.0005, 0.005  # between joined batches, while a client lags
_HEARTBEAT_DELAY_SECONDS = 0.25  # at most: with one fan-out after another, heartbeats still come
_RECONNECT_SPREAD_FACTOR = 5  # clients reconnect over this many times the drain: after 2 s, a tenth of them each second

SendMany = Callable[[Sequence[Connection], bytes], None]


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Limits of one worker. See `Settings` for the meaning of each."""

    streams: int = 12000
    per_user: int = 8
    per_address: int = 1000
    backlog_bytes: int = 65536
    heartbeat_seconds: float = 15.0
    max_age_seconds: float = 600.0
    replay_events: int = 10000


class StreamLimitExceeded(Exception):
    """A stream exceeds a limit. `event_name` is sent to the refused client: BUSY or CONNECTION_LIMIT_REACHED."""

    def __init__(self, event_name: str):
        self.event_name = event_name
        super().__init__(event_name)


class StaleIdentity(Exception):
    """The user's roles or session changed after the caller read them: read them again and subscribe again."""


class Hub:
    """Open streams of this worker. `encoders` maps a representation's name to its encoder.

    `on_delivered(event, user_ids)` is called for every MESSAGE handed to users' streams; it must not block. A transport
    may replace `send_many` if it can write the same bytes to many streams faster than one by one.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        limits: StreamLimits = StreamLimits(),  # noqa: B008 - frozen
        *,
        on_delivered: Callable[[Event, list[int]], None] = lambda event, user_ids: None,
    ):
        self.limits, self.on_delivered = limits, on_delivered
        self.on_control_event: Callable[[Event], None] = lambda event: None  # called before it is applied to streams
        safe_encoders = {name: with_reset_fallback(encode) for name, encode in encoders.items()}
        self.replay_buffer = ReplayBuffer(safe_encoders, limits.replay_events)
        self.is_draining = False
        self.counters: Counter[str] = Counter()
        self.changed_user_ids: set[int] = set()  # streams opened or closed; presence removes what it publishes
        self.send_many: SendMany = self._send_one_by_one
        self.fanout_idle = GeventEvent()  # set while no message is being sent: the moment for work that can wait
        self.fanout_idle.set()
        self._index = ConnectionIndex()
        self._future_cursor: set[Connection] = set()  # came with a cursor that this worker's tailer has not reached yet
        self._lagging: set[Connection] = set()  # still had unsent bytes when more came
        self._heartbeat_slot = 0

    def __len__(self) -> int:
        return len(self._index.by_id)

    @property
    def head(self) -> Cursor | None:
        """Cursor of the newest event handed to the streams; None before `start`."""
        return self.replay_buffer.head

    @property
    def seq(self) -> int:
        """The number of the newest event handed to the streams; 0 before `start`."""
        return self.head.seq if self.head else 0

    def has_delivered(self, cursor: Cursor) -> bool:
        """Whether every event up to `cursor` was handed to the streams."""
        return self.head is not None and self.head.epoch == cursor.epoch and self.head.seq >= cursor.seq

    @property
    def connections(self) -> list[Connection]:
        return list(self._index.by_id.values())

    @property
    def online_user_ids(self) -> KeysView[int]:
        """Users with an open stream. A live view: it changes while other greenlets run."""
        return self._index.by_user.keys()

    def get_user_connections(self, user_id: int) -> list[Connection]:
        return list(self._index.by_user.get(user_id, ()))

    def find(self, connection_id: str) -> Connection | None:
        return self._index.by_id.get(connection_id)

    def start(self, head: Cursor, recent: Iterable[Event] = ()) -> None:
        """Start at `head` and buffer `recent` (consecutive, ending at head). Also after a change of epoch."""
        self.replay_buffer.start(head, recent)

    # ---- opening and closing

    def subscribe(
        self,
        viewer: Viewer,
        *,
        representation: str,
        session: str,
        address: str,
        label: str = "",
        after: int = 0,
        viewer_as_of_seq: int,
        now: datetime,
    ) -> Connection:
        """Register a stream; from now on its live events wait in its backlog. The caller must open or close it.

        `after` is the validated seq of the client's cursor, `viewer_as_of_seq` the hub's seq before the caller read the
        roles of `viewer`. Raises StreamLimitExceeded or StaleIdentity; then nothing is registered.
        """
        self._check_limits(viewer, address)
        if any(
            invalidates_identity(event, viewer.user_id, session)
            for event in self.replay_buffer.iter_newer_than(viewer_as_of_seq)
        ):
            raise StaleIdentity
        connection = Connection(
            id=secrets.token_urlsafe(12),
            viewer=viewer,
            representation=representation,
            session=session,
            address=address,
            label=label,
            since=now,
            skip_through=max(self.head.seq, after),
            ends_at=time.monotonic() + self.limits.max_age_seconds * random.uniform(0.8, 1.2),
            slot=random.randrange(HEARTBEAT_SLOTS),
        )
        self._index.add(connection)
        if connection.skip_through > self.head.seq:
            self._future_cursor.add(connection)
        self.counters["opened"] += 1
        self.changed_user_ids.add(viewer.user_id)
        return connection

    def _check_limits(self, viewer: Viewer, address: str) -> None:
        limits, index = self.limits, self._index
        if self.is_draining or self.head is None or len(self) >= limits.streams:
            raise StreamLimitExceeded(UnloggedEvent.BUSY)
        is_user_over_limit = len(index.by_user.get(viewer.user_id, ())) >= limits.per_user
        if is_user_over_limit or index.count_client_connections(address) >= limits.per_address:
            self.counters["refused"] += 1
            raise StreamLimitExceeded(UnloggedEvent.CONNECTION_LIMIT_REACHED)

    def attach_transport(self, connection: Connection, transport: Transport) -> None:
        """Attach the transport of a subscribed stream. Its preamble and what has queued up goes out first."""
        connection.transport = transport
        if first_chunk := connection.next_chunk():
            transport.write(connection, first_chunk)

    def close(self, connection: Connection, reason: str, final_frame: bytes = b"") -> None:
        """Close a stream and remove it from every index. `final_frame` is sent if nothing else waits. Idempotent."""
        if not connection.is_open:
            return
        if final_frame:
            self.send(connection, final_frame)
            if not connection.is_open:  # the write found that the client is gone
                return
        connection.close_reason, connection.has_pending = reason, True
        self._index.remove(connection)
        self._future_cursor.discard(connection)
        self._lagging.discard(connection)
        self.counters["closed: " + reason] += 1
        self.changed_user_ids.add(connection.viewer.user_id)
        if connection.transport is not None:
            connection.transport.end(connection)

    def send(self, connection: Connection, data: bytes) -> None:
        """Write to one stream, in order, without waiting. A stream whose backlog is full is closed instead."""
        if not connection.has_pending:
            connection.transport.write(connection, data)
        elif connection.is_open:
            self._lagging.add(connection)
            if not connection.enqueue(data, self.limits.backlog_bytes):
                self.close(connection, "slow consumer")

    def _send_one_by_one(self, connections: Sequence[Connection], data: bytes) -> None:
        for connection in connections:
            self.send(connection, data)

    # ---- fan-out

    def deliver(self, events: Sequence[Event]) -> None:
        """Fan out consecutive events of the log to the streams of their audiences. Lets other greenlets run.

        Called only by the tailer's greenlet, in log order. If this raises, no event is lost silently: the head is
        already past these events, so every stream gets RESET.
        """
        self.fanout_idle.clear()
        self._lagging.clear()
        try:
            for batch in self.replay_buffer.append_in_batches(events):
                # no yield before this: a stream that opened now would get the batch in its replay, and then once more
                if batch[0].event.is_for_clients:
                    self._fan_out(batch)
                else:
                    self._apply_control_event(batch[0].event)
                if batch[-1].event is not events[-1]:
                    self._wait_for_lagging()
        except Exception:
            self.reset_all_streams()
            raise
        finally:
            self.fanout_idle.set()

    def _wait_for_lagging(self) -> None:
        """Between joined batches: wait briefly for lagging clients, as healthy ones need a moment too."""
        yield_to_loop()
        deadline = time.monotonic() + LAGGING_TIMEOUT_SECONDS
        while self._lagging and time.monotonic() < deadline:
            gevent.sleep(LAGGING_POLL_SECONDS)
            self._lagging = {connection for connection in self._lagging if connection.backlog}
        self._lagging.clear()

    def _fan_out(self, batch: list[BufferedEvent]) -> None:
        """Write a batch to its audience: by group if all members get the same, individually if users are named."""
        individual = self._find_individual(batch)
        pause_at = time.monotonic() + FANOUT_SLICE_SECONDS
        for members, data in self._build_group_writes(batch, individual):
            remaining = iter(members)
            while chunk := list(islice(remaining, SEND_BATCH_SIZE)):
                self.send_many(chunk, data)
                self.counters["writes"] += len(chunk)
                if time.monotonic() > pause_at:
                    yield_to_loop()
                    pause_at = time.monotonic() + FANOUT_SLICE_SECONDS
        for connection in individual:
            if data := self._join_frames(batch, connection.representation, connection.viewer, connection.skip_through):
                self.send(connection, data)
                self.counters["writes"] += 1
        self._report_batch(batch)

    def _build_group_writes(
        self, batch: list[BufferedEvent], individual: set[Connection]
    ) -> list[tuple[list[Connection], bytes]]:
        """The members and bytes per group. All of it is decided before the first write: a stream that opens while the
        fan-out yields has this batch in its replay already.
        """
        group_writes = []
        for (representation, roles), members in self._index.fanout_groups.items():
            if data := self._join_frames(batch, representation, Viewer(NO_USER_ID, roles)):
                group_writes.append(
                    ([c for c in members if c not in individual] if individual else list(members), data)
                )
        return group_writes

    def _find_individual(self, batch: list[BufferedEvent]) -> set[Connection]:
        """Streams whose group does not decide what they get: of users named by id, or ahead of this worker."""
        individual = set(self._future_cursor)
        self._future_cursor = {c for c in self._future_cursor if c.skip_through > batch[-1].event.seq}
        for buffered in batch:
            for user_id in self._index.find_online_ids(buffered.event.audience.named_user_ids):
                individual |= self._index.by_user[user_id]
        return individual

    def _join_frames(
        self, batch: list[BufferedEvent], representation: str, viewer: Viewer, skip_through: int = 0
    ) -> bytes:
        return b"".join(
            self.replay_buffer.get_frame(buffered, representation)
            for buffered in batch
            if buffered.event.seq > skip_through and buffered.event.audience.includes(viewer)
        )

    def _report_batch(self, batch: list[BufferedEvent]) -> None:
        for event in (buffered.event for buffered in batch):
            if event.type is not EventType.MESSAGE:
                continue
            user_ids = self._index.find_reached_user_ids(event.audience)
            if user_ids:
                self.on_delivered(event, user_ids)
            if len(user_ids) > SEND_BATCH_SIZE:
                yield_to_loop()

    def report_delivered(self, events: Iterable[Event], viewer: Viewer) -> None:
        """Report the MESSAGEs among `events` as delivered to this user, for a replay."""
        for event in events:
            if event.type is EventType.MESSAGE:
                self.on_delivered(event, [viewer.user_id])

    def send_to_user(self, user_id: int, data: bytes) -> None:
        """Write to every stream of one user: facts that are not in the log, such as a receipt."""
        for connection in self.get_user_connections(user_id):
            self.send(connection, data)

    # ---- control events

    def _apply_control_event(self, event: Event) -> None:
        """Apply a change of users (the event's audience) or of a role. The latter lets other greenlets run."""
        self.on_control_event(event)
        if event.type is EventType.ROLE_CHANGED:
            for connection in self._index.replace_role(event.payload["role"], event.payload["to"]):
                self._send_reset(connection)
        elif event.type is EventType.UNKNOWN:  # roles and sessions may have changed, so they are read again
            self.reset_all_streams(ends_at=time.monotonic())
        else:
            for user_id in event.audience.ids:
                for connection in self.get_user_connections(user_id):
                    self._apply_user_change(event, connection)

    def _apply_user_change(self, event: Event, connection: Connection) -> None:
        if ends_stream(event, connection.session):
            self.close(connection, "signed out", sse.encode_json_frame(UnloggedEvent.SIGNED_OUT, {}))
        elif event.type is EventType.VIEWER_CHANGED:
            roles = frozenset(event.payload["roles"])
            self._index.change_viewer(connection, Viewer(connection.viewer.user_id, roles))
            self._send_reset(connection)

    def reset_all_streams(self, *, ends_at: float = math.inf) -> None:
        """Send RESET to every client: continuity was lost. Streams end at the first heartbeat after `ends_at`."""
        for connection in self.connections:
            connection.ends_at = min(connection.ends_at, ends_at)
            self._send_reset(connection)

    def _send_reset(self, connection: Connection) -> None:
        self.send(connection, sse.encode_reset(self.head))

    # ---- heartbeats and shutdown

    def send_heartbeats(self) -> None:
        """Process the next of HEARTBEAT_SLOTS: write to its streams, and close those past their maximum age. Waits for a
        fan-out that is under way, but not for long: its last clients would wait for hundreds of heartbeats.
        """
        self.fanout_idle.wait(_HEARTBEAT_DELAY_SECONDS)
        self._heartbeat_slot = (self._heartbeat_slot + 1) % HEARTBEAT_SLOTS
        now = time.monotonic()
        for connection in list(self._index.heartbeat_slots[self._heartbeat_slot]):
            if now >= connection.ends_at:
                self.close(connection, "age", b"retry: %d\n\n" % sse.jitter_ms(1000))
            else:
                self.send(connection, sse.HEARTBEAT_FRAME)
                if connection.backlog_bytes:
                    self.changed_user_ids.add(connection.viewer.user_id)  # so that the console shows who lags

    @property
    def heartbeat_slot_seconds(self) -> float:
        """Time between two calls of `send_heartbeats`."""
        return self.limits.heartbeat_seconds / HEARTBEAT_SLOTS

    def drain(self, seconds: float) -> None:
        """Send every client SERVER_SHUTDOWN and close it, spread over about `seconds`. Lets other greenlets run."""
        self.is_draining = True
        streams = self.connections
        random.shuffle(streams)
        pause_seconds = seconds / max(1, len(streams))
        sleep_debt_seconds = 0.0
        for connection in streams:
            retry_ms = random.randint(200, 200 + _RECONNECT_SPREAD_FACTOR * int(seconds * 1000))
            self.close(
                connection, "shutdown", sse.encode_json_frame(UnloggedEvent.SERVER_SHUTDOWN, {}, retry_ms=retry_ms)
            )
            sleep_debt_seconds += pause_seconds
            if sleep_debt_seconds >= 0.005:
                gevent.sleep(sleep_debt_seconds)
                sleep_debt_seconds = 0.0


HUB = AppPart[Hub]("hub")
