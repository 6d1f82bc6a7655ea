"""The newest events with their frames, so that a client that was away briefly costs no query and no encoding."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import structlog

from broadcast.domain.events import Cursor, Event
from broadcast.streams import sse
from broadcast.streams.connection import COALESCED_BYTES

_log = structlog.get_logger(__name__)

Encoder = Callable[[Event], bytes]
MAX_BYTES = 32 * 1024 * 1024


class BufferedEvent:
    """An event in memory; each representation is encoded once, when it is first needed.

    `is_buffered` is False before the buffer has it, and once it is evicted; a replay may still hold it.
    """

    __slots__ = ("event", "frames", "is_buffered")

    def __init__(self, event: Event):
        self.event = event
        self.frames: dict[str, bytes] = {}
        self.is_buffered = False


class ReplayBuffer:
    """Consecutive events ending at `head`: at most `max_events`, and about MAX_BYTES of frames."""

    def __init__(self, encoders: Mapping[str, Encoder], max_events: int):
        self._encoders, self._max_events = encoders, max_events
        self._events: deque[BufferedEvent] = deque()
        self._bytes = 0
        self._starts_after_seq = 0  # every event with a greater seq, up to head, is here
        self.head: Cursor | None = None

    def start(self, head: Cursor, recent: Iterable[Event] = ()) -> None:
        """Start again at `head` with `recent`: consecutive events that end at head, or none."""
        while self._events:
            self._evict_oldest()
        self._starts_after_seq = head.seq
        for n, event in enumerate(recent):
            if n == 0:
                self._starts_after_seq = event.seq - 1
            self.append(event)
        self.head = head

    def append(self, event: Event) -> BufferedEvent:
        """Buffer the next event; evicts the oldest."""
        buffered = BufferedEvent(event)
        buffered.is_buffered = True
        self._events.append(buffered)
        self.head = event.cursor
        while len(self._events) > self._max_events or (self._bytes > MAX_BYTES and len(self._events) > 1):
            self._evict_oldest()
        return buffered

    def append_in_batches(self, events: Sequence[Event]) -> Iterator[list[BufferedEvent]]:
        """Buffer events just before sending, joined up to COALESCED_BYTES; a control event is its own batch."""
        batch: list[BufferedEvent] = []
        size = 0
        for event in events:
            if batch and (size > COALESCED_BYTES or not event.is_for_clients):
                yield batch
                batch, size = [], 0
            buffered = self.append(event)
            batch.append(buffered)
            if not event.is_for_clients:
                yield batch
                batch = []
                continue
            size += len(self.get_frame(buffered, "json"))
        if batch:
            yield batch

    def _evict_oldest(self) -> None:
        oldest = self._events.popleft()
        oldest.is_buffered = False
        self._bytes -= sum(map(len, oldest.frames.values()))
        self._starts_after_seq = oldest.event.seq

    def get_frame(self, buffered: BufferedEvent, representation: str) -> bytes:
        """The frame of an event. Its bytes count only while it is buffered: after eviction nothing subtracts them."""
        encoded = buffered.frames.get(representation)
        if encoded is None:
            encoded = buffered.frames[representation] = self._encoders[representation](buffered.event)
            if buffered.is_buffered:
                self._bytes += len(encoded)
        return encoded

    def slice(self, after: int, through: int) -> list[BufferedEvent] | None:
        """Events with after < seq ≤ through, or None if the buffer does not reach back that far."""
        if self.head is None or after < self._starts_after_seq or through > self.head.seq:
            return None
        skip = after - self._starts_after_seq
        return list(islice(self._events, skip, skip + through - after))

    def iter_newer_than(self, seq: int) -> Iterator[Event]:
        """Buffered events above `seq`, newest first."""
        for buffered in reversed(self._events):
            if buffered.event.seq <= seq:
                return
            yield buffered.event


def with_reset_fallback(encode: Encoder) -> Encoder:
    """Send RESET with the event's cursor if it cannot be encoded: costs a reload of the list, but no other event."""

    def encode_or_reset(event: Event) -> bytes:
        try:
            return encode(event)
        except Exception:
            _log.exception("event.not_encodable", seq=event.seq, type=event.type.value)
            return sse.encode_reset(event.cursor)

    return encode_or_reset
