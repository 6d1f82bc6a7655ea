"""Thousands of streams in one thread: sockets in one epoll, each reconnecting with its cursor as a browser does.

A stream here keeps counts and the newest id, no frames; tests that check frames use `tests.support.stream_client`. It
reconnects after the pause that the server asked for (`retry`), and with exponential backoff when nobody answers. Gaps
and duplicates are counted by the log's `seq`, so every event in the log must be for everyone.
"""

import heapq
import os
import select
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, cycle, islice
from random import uniform

from broadcast.domain.events import CLIENT_EVENT_TYPES
from tests.support.system import wait_for

_LOGGED_EVENTS = {type.encode() for type in CLIENT_EVENT_TYPES}
_REFUSAL_EVENTS = {b"BUSY", b"CONNECTION_LIMIT_REACHED"}
_INITIAL_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.5, 4.0  # as `inbox/live.js`, whose maximum is 30
_POLL_TIMEOUT_SECONDS = 0.01
_RECEIVE_BYTES = 65536


@dataclass(slots=True)
class Disconnection:
    """One disconnection and the reconnect. Times are `time.monotonic()`; `was_announced` if SERVER_SHUTDOWN came
    before, `retry_seconds` is the pause that the server asked for.
    """

    disconnected_at: float
    was_announced: bool
    retry_seconds: float | None
    reconnect_started_at: float | None = None
    connected_at: float | None = None


@dataclass(slots=True, eq=False)
class LoadStream:
    """One stream. `first_seq` and `last_seq` are the first and last seq received; `worker` served it last."""

    token: str
    cursor: str | None
    first_seq: int | None = None
    last_seq: int | None = None
    gaps: int = 0
    duplicates: int = 0
    resets: int = 0
    refusals: int = 0
    failures: int = 0  # responses other than 200, and failed connections
    worker: int = 0
    is_connected: bool = False
    disconnections: list[Disconnection] = field(default_factory=list)
    _sock: socket.socket | None = None
    _buffer: bytes = b""
    _has_read_headers: bool = False
    _is_shutdown_announced: bool = False
    _retry_seconds: float | None = None
    _backoff_seconds: float = _INITIAL_BACKOFF_SECONDS


class StreamLoad:
    """`stream_count` streams for `tokens` in turn, from `cursor` on, in one thread. Attributes may be read at any time.

    `should_reconnect`: reconnect after a disconnection. `should_read`: False for clients that stop reading once
    current. `max_pending`: the most connections that wait for a response. `on_thread_start` is called first, in the
    thread that makes the sockets.
    """

    def __init__(
        self,
        address: tuple[str, int],
        tokens: Sequence[str],
        stream_count: int,
        *,
        cursor: str | None,
        should_reconnect: bool = True,
        should_read: bool = True,
        max_pending: int = 1000,
        receive_buffer_bytes: int | None = None,
        on_thread_start: Callable[[], None] = lambda: None,
    ):
        last = _parse_seq(cursor) if cursor else None
        self.streams = [LoadStream(token, cursor, last_seq=last) for token in islice(cycle(tokens), stream_count)]
        self.events: Counter[str] = Counter()
        self.last_seen_at: dict[int, float] = {}  # seq → when a stream last received it
        self._address, self._should_reconnect, self._should_read = address, should_reconnect, should_read
        self._max_pending, self._receive_bytes, self._on_thread_start = (
            max_pending,
            receive_buffer_bytes,
            on_thread_start,
        )
        self._epoll = select.epoll()
        self._by_fd: dict[int, LoadStream] = {}
        self._reconnect_queue: list[tuple[float, int, LoadStream]] = []
        self._tie_breaker = count()
        self._pending_count = 0
        self._commands: deque[Callable[[], None]] = deque()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "StreamLoad":
        for member in self.streams:
            self._schedule_reconnect(member, 0)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)
        self._epoll.close()

    # ---- results

    @property
    def connected_count(self) -> int:
        """The number of streams that are CONNECTED now."""
        return sum(member.is_connected for member in self.streams)

    @property
    def disconnections(self) -> list[Disconnection]:
        return [cut for member in self.streams for cut in member.disconnections]

    def sum_counts(self, name: str) -> int:
        """Return the sum of that counter over all streams."""
        return sum(getattr(member, name) for member in self.streams)

    def wait_until_connected(self, *, seconds: float = 30) -> None:
        self._wait_for_all(lambda: self.connected_count, "be current", seconds)

    def wait_until_answered(self, *, seconds: float = 30) -> None:
        """Wait until every stream is current or was refused; for a load that does not reconnect."""
        refused = ("refusals", "failures")
        self._wait_for_all(lambda: self.connected_count + sum(map(self.sum_counts, refused)), "be answered", seconds)

    def wait_until_received(self, seq: int, *, seconds: float = 30) -> None:
        """Wait until every stream has everything up to `seq`."""

        def count_received() -> int:
            return sum(member.last_seq is not None and member.last_seq >= seq for member in self.streams)

        self._wait_for_all(count_received, f"have {seq}", seconds)

    def _wait_for_all(self, count: Callable[[], int], description: str, seconds: float) -> None:
        size = len(self.streams)
        try:
            wait_for(lambda: count() == size, seconds=seconds, description=f"{size} streams to {description}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {count()} do; {dict(self.events)}") from None

    def expect_nothing_lost(self) -> None:
        lossy = [member for member in self.streams if member.gaps or member.duplicates or member.resets]
        assert not lossy, f"{len(lossy)} streams have holes, doubles or resets; the first of them: {lossy[0]}"

    def disconnect_all(self) -> float:
        """Close every connection at once; the streams reconnect without a pause. Returns the time of the cut."""
        is_done = threading.Event()

        def end_all_connections() -> None:
            for member in self.streams:
                if member._sock is not None:
                    self._end_connection(member, retry_seconds=0)
            is_done.set()

        self._commands.append(end_all_connections)
        assert is_done.wait(30)
        return time.monotonic()

    # ---- the loop

    def _run(self) -> None:
        self._on_thread_start()
        while not self._stopping.is_set():
            while self._commands:
                self._commands.popleft()()
            self._connect_due_streams()
            for fd, event_mask in self._epoll.poll(_POLL_TIMEOUT_SECONDS, 1024):
                if member := self._by_fd.get(fd):
                    self._handle_poll_event(member, event_mask)
        for member in list(self._by_fd.values()):
            self._close(member)

    def _connect_due_streams(self) -> None:
        """Connect the streams whose pause is over."""
        while (
            self._reconnect_queue
            and self._reconnect_queue[0][0] <= time.monotonic()
            and self._pending_count < self._max_pending
        ):
            stream = heapq.heappop(self._reconnect_queue)[2]
            if stream.disconnections and stream.disconnections[-1].reconnect_started_at is None:
                stream.disconnections[-1].reconnect_started_at = time.monotonic()
            sock = stream._sock = socket.socket()
            if self._receive_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes)
            sock.setblocking(False)
            sock.connect_ex(self._address)
            stream._buffer, stream._has_read_headers, stream._is_shutdown_announced = b"", False, False
            self._by_fd[sock.fileno()] = stream
            self._epoll.register(sock.fileno(), select.EPOLLOUT)
            self._pending_count += 1

    def _handle_poll_event(self, stream: LoadStream, event_mask: int) -> None:
        try:
            if event_mask & select.EPOLLOUT:
                self._send_request(stream)
            else:
                self._read(stream)
        except OSError:
            self._end_connection(stream)

    def _send_request(self, stream: LoadStream) -> None:
        query = f"?after={stream.cursor}" if stream.cursor else ""
        head = f"GET /api/sse/connect{query} HTTP/1.1\r\nHost: {self._address[0]}\r\nConnection: close\r\n"
        stream._sock.sendall(f"{head}Authorization: Bearer {stream.token}\r\n\r\n".encode())
        self._epoll.modify(stream._sock.fileno(), select.EPOLLIN)

    def _read(self, stream: LoadStream) -> None:
        data = stream._sock.recv(_RECEIVE_BYTES)
        if not data:
            self._end_connection(stream)
            return
        received_at = time.monotonic()
        if not stream._has_read_headers:
            head, end, data = (stream._buffer + data).partition(b"\r\n\r\n")
            if not end:
                stream._buffer = head
                return
            self._read_head(stream, head)
        *blocks, stream._buffer = (stream._buffer + data).split(b"\n\n")
        for block in blocks:
            self._handle_block(stream, block, received_at)
        if stream.is_connected and not self._should_read:
            self._epoll.modify(stream._sock.fileno(), 0)

    def _read_head(self, stream: LoadStream, head: bytes) -> None:
        status, *lines = head.split(b"\r\n")
        if status.split()[1] != b"200":
            raise OSError(status.decode())
        worker = next(line for line in lines if line.lower().startswith(b"x-worker:"))
        stream.worker, stream._has_read_headers, stream._buffer = int(worker.partition(b":")[2]), True, b""
        self._pending_count -= 1

    def _handle_block(self, stream: LoadStream, block: bytes, received_at: float) -> None:
        # other lines are the sizes of chunks: a stream that ends while it opens is an ordinary response of gunicorn
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
        if b"retry" in fields:
            stream._retry_seconds = int(fields[b"retry"]) / 1000
        event = fields.get(b"event")
        if event is None:
            return
        self.events[event.decode()] += 1
        if b"id" in fields:
            stream.cursor = fields[b"id"].decode()
            self._count_event(stream, event, _parse_seq(stream.cursor), received_at)
        if event == b"CONNECTED":
            stream.is_connected, stream._backoff_seconds, stream._retry_seconds = True, _INITIAL_BACKOFF_SECONDS, None
            if stream.disconnections and stream.disconnections[-1].connected_at is None:
                stream.disconnections[-1].connected_at = received_at
        elif event == b"RESET":
            stream.resets += 1
        elif event in _REFUSAL_EVENTS:
            stream.refusals += 1
        elif event == b"SERVER_SHUTDOWN":
            stream._is_shutdown_announced = True

    def _count_event(self, stream: LoadStream, event: bytes, seq: int, received_at: float) -> None:
        if event in _LOGGED_EVENTS:
            self.last_seen_at[seq] = received_at
            stream.duplicates += stream.last_seq is not None and seq <= stream.last_seq
        if stream.first_seq is None:
            stream.first_seq = seq
        if stream.last_seq is not None and event != b"RESET":
            stream.gaps += max(0, seq - stream.last_seq - (event in _LOGGED_EVENTS))
        stream.last_seq = max(seq, stream.last_seq or 0)

    def _end_connection(self, stream: LoadStream, *, retry_seconds: float | None = None) -> None:
        """Record the disconnection. Reconnect after `retry_seconds`, the server's `retry`, or the growing backoff."""
        if stream.is_connected:
            stream.disconnections.append(
                Disconnection(time.monotonic(), stream._is_shutdown_announced, stream._retry_seconds)
            )
        elif not stream._has_read_headers:
            stream.failures += 1
        self._close(stream)
        if not self._should_reconnect:
            return
        if retry_seconds is None:
            retry_seconds, stream._retry_seconds = stream._retry_seconds, None
        if retry_seconds is None:
            retry_seconds = stream._backoff_seconds * uniform(0.7, 1.3)
            stream._backoff_seconds = min(2 * stream._backoff_seconds, _MAX_BACKOFF_SECONDS)
        self._schedule_reconnect(stream, retry_seconds)

    def _close(self, stream: LoadStream) -> None:
        if not stream._has_read_headers:
            self._pending_count -= 1
        del self._by_fd[stream._sock.fileno()]
        with suppress(OSError):
            self._epoll.unregister(stream._sock.fileno())
        stream._sock.close()
        stream._sock, stream.is_connected = None, False

    def _schedule_reconnect(self, stream: LoadStream, delay_seconds: float) -> None:
        heapq.heappush(self._reconnect_queue, (time.monotonic() + delay_seconds, next(self._tie_breaker), stream))


def _parse_seq(cursor: str) -> int:
    return int(cursor.rpartition("-")[2])


def choose_stream_count(normal_count: int, *, reduced_count: int) -> int:
    """Return how many streams to open: fewer on a busy machine."""
    return reduced_count if os.getloadavg()[0] > 1.5 * os.cpu_count() else normal_count


def max_per_second(times: Iterable[float]) -> int:
    """Return the largest number of `times` within one second."""
    sorted_times, max_count, window_start = sorted(times), 0, 0
    for n, at in enumerate(sorted_times):
        while at - sorted_times[window_start] >= 1:
            window_start += 1
        max_count = max(max_count, n - window_start + 1)
    return max_count
