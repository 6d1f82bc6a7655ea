"""One open stream: who looks, how far they are, and the bytes that wait for them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from broadcast.domain.audience import Viewer

COALESCED_BYTES = 16 * 1024  # frames that wait are joined up to about this size, so that one send carries them


class Transport(Protocol):
    """What carries bytes to a client. Two stand behind this: the generator of a WSGI response, and a socket taken over.

    Called in the worker's own thread, never waits, never raises. A wire that finds its client gone calls `hub.close_consumer`.
    """

    def write(self, connection: "Connection", data: bytes) -> None:
        """Send `data`, then whatever `connection.take` gives, as far as the client takes it now; keep the rest as `unsent`.

        The hub calls it only while nothing waits.
        """

    def end(self, connection: "Connection") -> None:
        """The connection left the hub; let go of the client once nothing waits (at once if it does not read)."""


@dataclass(slots=True, eq=False)
class Connection:
    """State of one stream, owned by the hub.

    `session` names the session or token it was opened with; with spaces between, several whose end is its end too.
    `skip_through`: events up to this seq are part of the prelude, so the live ones are skipped. What waits goes out in this
    order: `unsent`, the end of a write that the client took only in part; `preamble`, replay and CONNECTED, pulled at the
    pace of the client (it must not block); `backlog`, live frames. Each is None when empty. `transport` is None from
    subscribing until the stream is opened, `fd` is the descriptor of a socket wire. `close_reason` says why the stream
    ended, None while it is open. `has_pending` is the one thing fan-out looks at: False while the stream is open and
    nothing waits, so that the next bytes may be written at once.
    """

    id: str
    viewer: Viewer
    representation: str
    session: str
    address: str
    label: str
    since: datetime
    skip_through: int
    ends_at: float
    slot: int
    transport: Transport | None = None
    fd: int = -1
    unsent: bytes | None = None
    preamble: Iterator[bytes] | None = None
    backlog: bytearray | None = None
    close_reason: str | None = None
    has_pending: bool = True

    @property
    def is_open(self) -> bool:
        return self.close_reason is None

    @property
    def fanout_group(self) -> tuple[str, frozenset[str]]:
        return self.representation, self.viewer.roles

    @property
    def backlog_bytes(self) -> int:
        """Live bytes that wait for this client."""
        return len(self.unsent or b"") + len(self.backlog or b"")

    def set_unsent(self, data: bytes) -> None:
        """`data` is what the client did not take."""
        self.unsent, self.has_pending = data, True

    def enqueue(self, data: bytes, max_bytes: int) -> bool:
        """Let live bytes wait. False when more than `max_bytes` wait already: then nothing does any more, the client
        is too slow.
        """
        if self.backlog is None:  # one write of any size may wait: a single long message is no slow client
            self.backlog = bytearray(data)
        elif len(self.backlog) > max_bytes:
            self.discard()
            return False
        else:
            self.backlog += data
        return True

    def next_chunk(self) -> bytes:
        """Take the next bytes to write; b"" when nothing waits any more."""
        if self.unsent is not None:
            data, self.unsent = self.unsent, None
            return data
        if self.preamble is not None and (data := self._next_preamble_chunk()):
            return data
        if self.backlog is not None:
            data, self.backlog = bytes(self.backlog), None
            return data
        self.has_pending = self.close_reason is not None
        return b""

    def _next_preamble_chunk(self) -> bytes:
        """The next frames of the prelude as one write; b"" when it is over."""
        frames, size = [], 0
        for frame in self.preamble:
            frames.append(frame)
            size += len(frame)
            if size >= COALESCED_BYTES:
                return b"".join(frames)
        self.preamble = None
        return b"".join(frames)

    def discard(self) -> None:
        """Forget what waits: the client is gone, or returns with its cursor."""
        self.unsent = self.preamble = self.backlog = None
