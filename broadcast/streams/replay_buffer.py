"""The newest events with their frames, so that a client that was away for a moment costs no query, and no encoding either."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from broadcast.domain.events import Cursor, Event

Encoder = Callable[[Event], bytes]
MOST_BYTES = 32 * 1024 * 1024


class Remembered:
    """An event in memory; each representation is encoded once, when it is first needed.

    `is_held` is False once memory has forgotten it: a replay that goes out at the pace of a slow client may still have it.
    """

    __slots__ = ("event", "frames", "is_held")

    def __init__(self, event: Event):
        self.event = event
        self.frames: dict[str, bytes] = {}
        self.is_held = True


class Memory:
    """Consecutive events ending at `head`: at most `most_events`, and about MOST_BYTES of frames."""

    def __init__(self, encoders: Mapping[str, Encoder], most_events: int):
        self._encoders, self._most_events = encoders, most_events
        self._events: deque[Remembered] = deque()
        self._bytes = 0
        self._from = 0  # every event with a greater seq, up to head, is here
        self.head: Cursor | None = None

    def start(self, head: Cursor, recent: Iterable[Event] = ()) -> None:
        """Begin anew at `head`, holding `recent`: consecutive events that end at head, or none."""
        while self._events:
            self._forget_oldest()
        self._from = head.seq
        for n, event in enumerate(recent):
            if n == 0:
                self._from = event.seq - 1
            self.add(event)
        self.head = head

    def add(self, event: Event) -> Remembered:
        """Remember the next event; the oldest are forgotten."""
        remembered = Remembered(event)
        self._events.append(remembered)
        self.head = event.cursor
        while len(self._events) > self._most_events or (self._bytes > MOST_BYTES and len(self._events) > 1):
            self._forget_oldest()
        return remembered

    def _forget_oldest(self) -> None:
        oldest = self._events.popleft()
        oldest.is_held = False
        self._bytes -= sum(map(len, oldest.frames.values()))
        self._from = oldest.event.seq

    def frame(self, remembered: Remembered, representation: str) -> bytes:
        """The bytes of an event. They count while memory holds it: what was forgotten is never subtracted again."""
        encoded = remembered.frames.get(representation)
        if encoded is None:
            encoded = remembered.frames[representation] = self._encoders[representation](remembered.event)
            if remembered.is_held:
                self._bytes += len(encoded)
        return encoded

    def recall(self, after: int, through: int) -> list[Remembered] | None:
        """Events with after < seq ≤ through, or None when memory does not reach back that far."""
        if self.head is None or after < self._from or through > self.head.seq:
            return None
        skip = after - self._from
        return list(islice(self._events, skip, skip + through - after))

    def newer_than(self, seq: int) -> Iterator[Event]:
        """Events above `seq`, newest first, as far as memory reaches."""
        for remembered in reversed(self._events):
            if remembered.event.seq <= seq:
                return
            yield remembered.event
