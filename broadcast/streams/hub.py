"""The hub: fan-out, heartbeats, and the beginning and the end of every stream of this worker.

Everything here runs in one thread. A method that may let other greenlets run says so; between two such points the indexes
do not change.
"""

import math
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import gevent
from gevent.event import Event as Flag

from broadcast.base.app_parts import AppPart
from broadcast.base.cooperative import let_others_run
from broadcast.domain.audience import Viewer
from broadcast.domain.events import Cursor, Event, EventType
from broadcast.streams import sse
from broadcast.streams.connection import JOINED_BYTES, Connection, Wire
from broadcast.streams.connection_index import SLOTS, Index
from broadcast.streams.control_events import is_of, steers
from broadcast.streams.replay_buffer import Encoder, Memory, Remembered

AT_ONCE = 128  # sends between two looks at the clock
SLICE_SECONDS = 0.003  # after sending this long, the other requests of the worker have their turn
REST_SECONDS, PATIENCE_SECONDS = 0.0005, 0.005  # between joined batches, while a client is behind
_RETURN_SPREAD = 5  # clients return over this many times the drain: after 2 s of it, a tenth of them in each second
NOBODY = 0  # no user id: stands for all people with the same roles

Many = Callable[[Sequence[Connection], bytes], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one worker carries. See `Settings` for the meaning of each."""

    streams: int = 12000
    per_user: int = 8
    per_address: int = 1000
    backlog_bytes: int = 65536
    heartbeat_seconds: float = 15.0
    max_age_seconds: float = 600.0
    replay_events: int = 10000


class TooMany(Exception):
    """A stream more than a limit allows. `event` is what the refused client is told: BUSY or CONNECTION_LIMIT_REACHED."""

    def __init__(self, event: str):
        self.event = event
        super().__init__(event)


class Stale(Exception):
    """The person's roles or session changed after the caller looked them up: look again and subscribe anew."""


class Hub:
    """Open streams of this worker. `encoders` maps a representation's name to its encoder.

    `on_delivered(event, user_ids)` is told of every MESSAGE handed to people's streams; it must not block. `send_many` may be
    replaced by a wire that can write the same bytes to many of its streams faster than one by one.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        limits: Limits = Limits(),  # noqa: B008 - frozen
        *,
        on_delivered: Callable[[Event, list[int]], None] = lambda event, user_ids: None,
    ):
        self.encoders, self.limits, self.on_delivered = encoders, limits, on_delivered
        self.memory = Memory(encoders, limits.replay_events)
        self.draining = False
        self.counters: Counter[str] = Counter()
        self.changed_users: set[int] = set()  # whose streams came or went; whoever publishes presence takes them out
        self.send_many: Many = self._send_one_by_one
        self.calm = Flag()  # no message is on its way to streams: the moment for work that can wait
        self.calm.set()
        self._index = Index()
        self._ahead: set[Connection] = set()  # brought a cursor that this worker's tail has not reached yet
        self._behind: set[Connection] = set()  # had not taken what came before when more came
        self._beat = 0

    def __len__(self) -> int:
        return len(self._index.by_id)

    @property
    def head(self) -> Cursor | None:
        """The newest event handed to the streams; None before `start`."""
        return self.memory.head

    @property
    def connections(self) -> list[Connection]:
        return list(self._index.by_id.values())

    def users(self) -> dict[int, int]:
        """Open streams of each person who has any."""
        return {user_id: len(streams) for user_id, streams in self._index.by_user.items()}

    def of_user(self, user_id: int) -> list[Connection]:
        return self._index.of_user(user_id)

    def find(self, connection_id: str) -> Connection | None:
        return self._index.by_id.get(connection_id)

    def start(self, head: Cursor, recent: Iterable[Event] = ()) -> None:
        """Begin at `head`, remembering `recent` (consecutive, ending at head). Also after a change of epoch."""
        self.memory.start(head, recent)

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
        looked_up_at: int,
        now: datetime,
    ) -> Connection:
        """Register a stream; from here on its live events wait for it. The caller opens it or closes it.

        `after` is the validated seq of the client's cursor, `looked_up_at` the hub's seq before the caller read the roles
        of `viewer`. Raises TooMany or Stale; nothing is registered then.
        """
        self._refuse_too_many(viewer, address)
        if any(steers(event, viewer.user_id, session) for event in self.memory.newer_than(looked_up_at)):
            raise Stale
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
            slot=random.randrange(SLOTS),
        )
        self._index.add(connection)
        if connection.skip_through > self.head.seq:
            self._ahead.add(connection)
        self.counters["opened"] += 1
        self.changed_users.add(viewer.user_id)
        return connection

    def _refuse_too_many(self, viewer: Viewer, address: str) -> None:
        limits, index = self.limits, self._index
        if self.draining or self.head is None or len(self) >= limits.streams:
            raise TooMany("BUSY")
        is_over = len(index.by_user.get(viewer.user_id, ())) >= limits.per_user
        if is_over or index.count_from(address) >= limits.per_address:
            self.counters["refused"] += 1
            raise TooMany("CONNECTION_LIMIT_REACHED")

    def open(self, connection: Connection, wire: Wire) -> None:
        """Attach the wire of a subscribed stream; its prelude and whatever came meanwhile goes out first."""
        connection.wire = wire
        if first := connection.take():
            wire.write(connection, first)

    def close(self, connection: Connection, reason: str, last: bytes = b"") -> None:
        """End a stream: out of every index at once, then `last` is sent if nothing else waits. Safe to call twice."""
        if not connection.is_open:
            return
        if last:
            self.send(connection, last)
            if not connection.is_open:  # the write found the client gone
                return
        connection.closed, connection.waits = reason, True
        self._index.remove(connection)
        self._ahead.discard(connection)
        self._behind.discard(connection)
        self.counters["closed: " + reason] += 1
        self.changed_users.add(connection.viewer.user_id)
        if connection.wire is not None:
            connection.wire.end(connection)

    def send(self, connection: Connection, data: bytes) -> None:
        """Write to one stream, in order, without waiting. A stream whose backlog is full is closed instead."""
        if not connection.waits:
            connection.wire.write(connection, data)
        elif connection.is_open:
            self._behind.add(connection)
            if not connection.keep_back(data, self.limits.backlog_bytes):
                self.close(connection, "slow consumer")

    def _send_one_by_one(self, connections: Sequence[Connection], data: bytes) -> None:
        for connection in connections:
            self.send(connection, data)

    # ---- fan-out

    def deliver(self, events: Sequence[Event]) -> None:
        """Hand consecutive events of the log to the streams of their audiences. Lets other greenlets run.

        Called by one greenlet, the tail, in the order of the log.
        """
        self.calm.clear()
        self._behind.clear()
        try:
            for batch in self._batches(events):
                # no pause before this: a stream that opened now would have the batch in its replay, and then once more
                if batch[0].event.is_for_clients:
                    self._fan_out(batch)
                else:
                    self._steer(batch[0].event)
                if batch[-1].event is not events[-1]:
                    self._let_clients_read()
        finally:
            self.calm.set()

    def _let_clients_read(self) -> None:
        """Between joined batches: whoever has not taken the one before yet gets a moment, as healthy clients need one."""
        let_others_run()
        until = time.monotonic() + PATIENCE_SECONDS
        while self._behind and time.monotonic() < until:
            gevent.sleep(REST_SECONDS)
            self._behind = {connection for connection in self._behind if connection.backlog}
        self._behind.clear()

    def _batches(self, events: Sequence[Event]) -> Iterator[list[Remembered]]:
        """Remember events just before they are sent, joined up to JOINED_BYTES; steering events stand alone."""
        batch: list[Remembered] = []
        size = 0
        for event in events:
            if batch and (size > JOINED_BYTES or not event.is_for_clients):
                yield batch
                batch, size = [], 0
            remembered = self.memory.add(event)
            batch.append(remembered)
            if not event.is_for_clients:
                yield batch
                batch = []
                continue
            size += len(self.memory.frame(remembered, "json"))
        if batch:
            yield batch

    def _fan_out(self, batch: list[Remembered]) -> None:
        """Write a batch to all it is for: kind by kind where all members get the same, alone where a person is meant."""
        alone = self._alone(batch)
        pause_at = time.monotonic() + SLICE_SECONDS
        for members, data in self._shared(batch, alone):
            streams = iter(members)
            while some := list(islice(streams, AT_ONCE)):
                self.send_many(some, data)
                self.counters["writes"] += len(some)
                if time.monotonic() > pause_at:
                    let_others_run()
                    pause_at = time.monotonic() + SLICE_SECONDS
        for connection in alone:
            if data := self._joined(batch, connection.representation, connection.viewer, connection.skip_through):
                self.send(connection, data)
                self.counters["writes"] += 1
        self._report(batch)

    def _shared(self, batch: list[Remembered], alone: set[Connection]) -> list[tuple[list[Connection], bytes]]:
        """Who gets which bytes. All of it is settled before the first write: a stream that opens during a pause of the
        fan-out has this batch in its replay already."""
        shared = []
        for (representation, roles), members in self._index.by_kind.items():
            if data := self._joined(batch, representation, Viewer(NOBODY, roles)):
                shared.append(([c for c in members if c not in alone] if alone else list(members), data))
        return shared

    def _alone(self, batch: list[Remembered]) -> set[Connection]:
        """Streams for which their kind does not say what they get: of people known by name, and those ahead of this worker."""
        alone = set(self._ahead)
        self._ahead = {c for c in self._ahead if c.skip_through > batch[-1].event.seq}
        online = self._index.by_user
        for ids in (remembered.event.audience.named for remembered in batch):
            for user_id in ids if len(ids) < len(online) else online.keys() & ids:
                alone.update(online.get(user_id, ()))
        return alone

    def _joined(self, batch: list[Remembered], representation: str, viewer: Viewer, skip_through: int = 0) -> bytes:
        return b"".join(
            self.memory.frame(remembered, representation)
            for remembered in batch
            if remembered.event.seq > skip_through and remembered.event.audience.includes(viewer)
        )

    def _report(self, batch: list[Remembered]) -> None:
        for event in (remembered.event for remembered in batch):
            if event.type is not EventType.MESSAGE:
                continue
            user_ids = self._reached(event)
            if user_ids:
                self.on_delivered(event, user_ids)
            if len(user_ids) > AT_ONCE:
                let_others_run()

    def _reached(self, event: Event) -> list[int]:
        audience, online = event.audience, self._index.by_user
        kinds = (
            members for (_, roles), members in self._index.by_kind.items() if audience.includes(Viewer(NOBODY, roles))
        )
        reached = {connection.viewer.user_id for members in kinds for connection in members}
        met = online.keys() & audience.named
        included = {user_id for user_id in met if audience.includes(next(iter(online[user_id])).viewer)}
        return list(reached - met | included)

    def tell_delivered(self, events: Iterable[Event], viewer: Viewer) -> None:
        """Report the MESSAGEs among `events` as handed to this person: what a replay shows."""
        for event in events:
            if event.type is EventType.MESSAGE:
                self.on_delivered(event, [viewer.user_id])

    def send_to_user(self, user_id: int, data: bytes) -> None:
        """Write to every stream of one person: facts that are not in the log, such as a receipt."""
        for connection in self.of_user(user_id):
            self.send(connection, data)

    # ---- people change

    def _steer(self, event: Event) -> None:
        """Follow a change of people; its audience is the person concerned. A role's concerns many: lets other greenlets run."""
        if event.type is EventType.ROLE_CHANGED:
            for connection in self._index.change_role(event.payload["role"], event.payload["to"]):
                self.send(connection, self._reset())
            return
        if event.type is EventType.UNKNOWN:
            self.reset_all(ends_at=time.monotonic())  # roles and sessions may have changed: they are looked up anew
            return
        for user_id in event.audience.ids:
            if event.type is EventType.VIEWER_CHANGED:
                self.change_viewer(
                    Viewer(user_id, frozenset(event.payload["roles"])), disabled=event.payload["disabled"]
                )
            else:
                self.end_session(user_id, event.payload["session"])

    def end_session(self, user_id: int, session: str) -> None:
        for connection in self.of_user(user_id):
            if is_of(connection.session, session):
                self.close(connection, "signed out", sse.json_frame("SIGNED_OUT", {}))

    def change_viewer(self, viewer: Viewer, *, disabled: bool = False) -> None:
        """Give a person's open streams new roles and tell them to load their list anew; disabled people's are closed."""
        for connection in self.of_user(viewer.user_id):
            if disabled:
                self.close(connection, "signed out", sse.json_frame("SIGNED_OUT", {}))
            else:
                self._index.change_viewer(connection, viewer)
                self.send(connection, self._reset())

    def reset_all(self, *, ends_at: float = math.inf) -> None:
        """Tell every client to load its list anew: continuity was lost. Streams end at the first heartbeat after `ends_at`."""
        for connection in self.connections:
            connection.ends_at = min(connection.ends_at, ends_at)
            self.send(connection, self._reset())

    def _reset(self) -> bytes:
        return sse.json_frame("RESET", {"cursor": str(self.head)}, id=str(self.head))

    # ---- life

    def beat(self) -> None:
        """One of the SLOTS moments of a heartbeat period: write to that slot's streams, end those that are old."""
        self._beat = (self._beat + 1) % SLOTS
        now = time.monotonic()
        for connection in list(self._index.slots[self._beat]):
            if now >= connection.ends_at:
                self.close(connection, "age", b"retry: %d\n\n" % sse.jittered_ms(1000))
            else:
                self.send(connection, sse.HEARTBEAT)
                if connection.backlog_bytes:
                    self.changed_users.add(connection.viewer.user_id)  # so that the console sees who lags

    @property
    def beat_seconds(self) -> float:
        """Time between two calls of `beat`."""
        return self.limits.heartbeat_seconds / SLOTS

    def drain(self, seconds: float) -> None:
        """Tell every client that this worker ends and close it, spread over about `seconds`. Lets other greenlets run."""
        self.draining = True
        streams = self.connections
        random.shuffle(streams)
        pause = seconds / max(1, len(streams))
        owed = 0.0
        for connection in streams:
            retry_ms = random.randint(200, 200 + _RETURN_SPREAD * int(seconds * 1000))
            self.close(connection, "shutdown", sse.json_frame("SERVER_SHUTDOWN", {}, retry_ms=retry_ms))
            owed += pause
            if owed >= 0.005:
                gevent.sleep(owed)
                owed = 0.0


HUB = AppPart[Hub]("hub")
