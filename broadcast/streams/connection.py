"""One open stream: its viewer, its position, and the bytes that wait for the client."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from broadcast.domain.audience import Viewer

COALESCED_BYTES = 16 * 1024  # waiting frames are joined up to about this size, so that one send carries them


class Transport(Protocol):
    """Carries bytes to a client. Two implementations: the generator of a WSGI response, and an adopted socket.

    Called in the worker's own thread; never waits, never raises. A transport whose client is gone calls `Hub.close`.
    """

    def write(self, connection: "Connection", data: bytes) -> None:
        """Send `data`, then what `connection.next_chunk` returns, as far as the client accepts it now; keep the rest as
        `unsent`.

        The hub calls this only while nothing waits.
        """

    def end(self, connection: "Connection") -> None:
        """The connection left the hub: release the client once nothing waits (at once if it does not read)."""


@dataclass(slots=True, eq=False)
class Connection:
    """State of one stream, owned by the hub.

    `session` names the session or token that opened the stream, or several, separated by spaces; the stream ends with
    any of them. `skip_through`: events up to this seq are in the preamble, so their live copies are skipped. Waiting
    bytes go out in this order: `unsent`, the rest of a partial write; `preamble`, replay and CONNECTED, pulled at the
    client's pace (it must not block); `backlog`, live frames. Each is None when empty. `transport` is None from
    subscribing until the stream is opened; `fd` is the descriptor of an adopted socket. `close_reason` says why the
    stream ended, None while it is open. `has_pending` is the only field that fan-out checks: False while the stream is
    open and nothing waits, so that the next bytes may be written at once.
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
        """Keep `data`, which the client did not accept yet."""
        self.unsent, self.has_pending = data, True

    def enqueue(self, data: bytes, max_bytes: int) -> bool:
        """Append live bytes to the backlog. If more than `max_bytes` wait already, the client is too slow: discard
        everything and return False.
        """
        if self.backlog is None:  # one write of any size may wait: a single long message does not make a slow client
            self.backlog = bytearray(data)
        elif len(self.backlog) > max_bytes:
            self.discard()
            return False
        else:
            self.backlog += data
        return True

    def next_chunk(self) -> bytes:
        """Remove and return the next bytes to write; b"" when nothing waits any more."""
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
        """The next frames of the preamble as one write; b"" when it is finished."""
        frames, size = [], 0
        for frame in self.preamble:
            frames.append(frame)
            size += len(frame)
            if size >= COALESCED_BYTES:
                return b"".join(frames)
        self.preamble = None
        return b"".join(frames)

    def discard(self) -> None:
        """Drop what waits: the client is gone, or will return with its cursor."""
        self.unsent = self.preamble = self.backlog = None
