"""Thousands of streams in one thread: sockets in one epoll, each coming back with its cursor as a browser's does.

A stream here keeps counts and the newest id, no frames; `tests.streams` is for tests that look at what was sent. It comes back
after the pause that the server asked for (`retry`), and after growing pauses of its own when nobody answers. Numbers are
counted as holes and doubles by the log's `seq`: that holds while everything in the log is for everybody.
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

from tests.system import wait_for

_LOGGED = {b"MESSAGE", b"MESSAGE_UPDATED", b"MESSAGE_REMOVED"}
_REFUSALS = {b"BUSY", b"CONNECTION_LIMIT_REACHED"}
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 4.0  # as `inbox/live.js`, which goes on to 30
_TURN_SECONDS = 0.01
_ROOM = 65536


@dataclass(slots=True)
class Cut:
    """One end of a stream, and its way back. Times are `time.monotonic()`; `told` if SERVER_SHUTDOWN came before it, `pause`
    the seconds that the server asked for.
    """

    at: float
    told: bool
    pause: float | None
    knocked_at: float | None = None
    current_at: float | None = None


@dataclass(slots=True, eq=False)
class Member:
    """One stream. `first` and `last` are the seqs it was told first and last; `worker` served it last."""

    token: str
    cursor: str | None
    first: int | None = None
    last: int | None = None
    holes: int = 0
    doubles: int = 0
    resets: int = 0
    refusals: int = 0
    failures: int = 0  # answers other than 200, and connections that came to nothing
    worker: int = 0
    is_current: bool = False
    cuts: list[Cut] = field(default_factory=list)
    _sock: socket.socket | None = None
    _waiting: bytes = b""
    _head_is_read: bool = False
    _told: bool = False
    _retry_seconds: float | None = None
    _pause: float = _FIRST_PAUSE_SECONDS


class Swarm:
    """`size` streams for `tokens` in turn, from `after` on. Read its attributes at any time; what it does, its thread does.

    `returns`: come back after an end. `reads`: False for clients that never read again once they are current.
    `at_once`: most connections that wait for their answer. `enter` is called first, in the thread that makes the sockets.
    """

    def __init__(
        self,
        address: tuple[str, int],
        tokens: Sequence[str],
        size: int,
        *,
        after: str | None,
        returns: bool = True,
        reads: bool = True,
        at_once: int = 1000,
        receive_bytes: int | None = None,
        enter: Callable[[], None] = lambda: None,
    ):
        last = _seq(after) if after else None
        self.members = [Member(token, after, last=last) for token in islice(cycle(tokens), size)]
        self.events: Counter[str] = Counter()
        self.last_seen_at: dict[int, float] = {}  # seq → when the last stream until now had it
        self._address, self._returns, self._reads = address, returns, reads
        self._at_once, self._receive_bytes, self._enter = at_once, receive_bytes, enter
        self._epoll = select.epoll()
        self._by_fd: dict[int, Member] = {}
        self._due: list[tuple[float, int, Member]] = []
        self._order = count()
        self._knocking = 0
        self._orders: deque[Callable[[], None]] = deque()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Swarm":
        for member in self.members:
            self._come_back(member, 0)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(30)
        self._epoll.close()

    # ---- what a test asks

    @property
    def current(self) -> int:
        """Streams that are CONNECTED now."""
        return sum(member.is_current for member in self.members)

    @property
    def cuts(self) -> list[Cut]:
        return [cut for member in self.members for cut in member.cuts]

    def total(self, name: str) -> int:
        """A count of the members, added up."""
        return sum(getattr(member, name) for member in self.members)

    def wait_until_current(self, *, seconds: float = 30) -> None:
        self._wait_for_all(lambda: self.current, "be current", seconds)

    def wait_until_answered(self, *, seconds: float = 30) -> None:
        """Wait until every stream is current or was refused; for a swarm that does not return."""
        refused = ("refusals", "failures")
        self._wait_for_all(lambda: self.current + sum(map(self.total, refused)), "be answered", seconds)

    def wait_until_at(self, seq: int, *, seconds: float = 30) -> None:
        """Wait until every stream has everything up to `seq`."""

        def there() -> int:
            return sum(member.last is not None and member.last >= seq for member in self.members)

        self._wait_for_all(there, f"have {seq}", seconds)

    def _wait_for_all(self, count: Callable[[], int], what: str, seconds: float) -> None:
        size = len(self.members)
        try:
            wait_for(lambda: count() == size, seconds=seconds, what=f"{size} streams to {what}")
        except AssertionError as late:
            raise AssertionError(f"{late}: {count()} do; {dict(self.events)}") from None

    def expect_nothing_lost(self) -> None:
        lossy = [member for member in self.members if member.holes or member.doubles or member.resets]
        assert not lossy, f"{len(lossy)} streams have holes, doubles or resets; the first of them: {lossy[0]}"

    def cut(self) -> float:
        """Break off every connection at once; the streams come back without a pause. Returns when it was done."""
        done = threading.Event()

        def cut_all() -> None:
            for member in self.members:
                if member._sock is not None:
                    self._end(member, pause=0)
            done.set()

        self._orders.append(cut_all)
        assert done.wait(30)
        return time.monotonic()

    # ---- the loop

    def _run(self) -> None:
        self._enter()
        while not self._ending.is_set():
            while self._orders:
                self._orders.popleft()()
            self._knock()
            for fd, happened in self._epoll.poll(_TURN_SECONDS, 1024):
                if member := self._by_fd.get(fd):
                    self._look(member, happened)
        for member in list(self._by_fd.values()):
            self._close(member)

    def _knock(self) -> None:
        """Connect whose pause is over."""
        while self._due and self._due[0][0] <= time.monotonic() and self._knocking < self._at_once:
            member = heapq.heappop(self._due)[2]
            if member.cuts and member.cuts[-1].knocked_at is None:
                member.cuts[-1].knocked_at = time.monotonic()
            sock = member._sock = socket.socket()
            if self._receive_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes)
            sock.setblocking(False)
            sock.connect_ex(self._address)
            member._waiting, member._head_is_read, member._told = b"", False, False
            self._by_fd[sock.fileno()] = member
            self._epoll.register(sock.fileno(), select.EPOLLOUT)
            self._knocking += 1

    def _look(self, member: Member, happened: int) -> None:
        try:
            if happened & select.EPOLLOUT:
                self._ask(member)
            else:
                self._read(member)
        except OSError:
            self._end(member)

    def _ask(self, member: Member) -> None:
        query = f"?after={member.cursor}" if member.cursor else ""
        head = f"GET /api/sse/connect{query} HTTP/1.1\r\nHost: {self._address[0]}\r\nConnection: close\r\n"
        member._sock.sendall(f"{head}Authorization: Bearer {member.token}\r\n\r\n".encode())
        self._epoll.modify(member._sock.fileno(), select.EPOLLIN)

    def _read(self, member: Member) -> None:
        data = member._sock.recv(_ROOM)
        if not data:
            self._end(member)
            return
        at = time.monotonic()
        if not member._head_is_read:
            head, end, data = (member._waiting + data).partition(b"\r\n\r\n")
            if not end:
                member._waiting = head
                return
            self._read_head(member, head)
        *blocks, member._waiting = (member._waiting + data).split(b"\n\n")
        for block in blocks:
            self._take(member, block, at)
        if member.is_current and not self._reads:
            self._epoll.modify(member._sock.fileno(), 0)

    def _read_head(self, member: Member, head: bytes) -> None:
        status, *lines = head.split(b"\r\n")
        if status.split()[1] != b"200":
            raise OSError(status.decode())
        worker = next(line for line in lines if line.lower().startswith(b"x-worker:"))
        member.worker, member._head_is_read, member._waiting = int(worker.partition(b":")[2]), True, b""
        self._knocking -= 1

    def _take(self, member: Member, block: bytes, at: float) -> None:
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
        if b"retry" in fields:
            member._retry_seconds = int(fields[b"retry"]) / 1000
        event = fields.get(b"event")
        if event is None:
            return
        self.events[event.decode()] += 1
        if b"id" in fields:
            member.cursor = fields[b"id"].decode()
            self._count(member, event, _seq(member.cursor), at)
        if event == b"CONNECTED":
            member.is_current, member._pause, member._retry_seconds = True, _FIRST_PAUSE_SECONDS, None
            if member.cuts and member.cuts[-1].current_at is None:
                member.cuts[-1].current_at = at
        elif event == b"RESET":
            member.resets += 1
        elif event in _REFUSALS:
            member.refusals += 1
        elif event == b"SERVER_SHUTDOWN":
            member._told = True

    def _count(self, member: Member, event: bytes, seq: int, at: float) -> None:
        if event in _LOGGED:
            self.last_seen_at[seq] = at
            member.doubles += member.last is not None and seq <= member.last
        if member.first is None:
            member.first = seq
        if member.last is not None and event != b"RESET":
            member.holes += max(0, seq - member.last - (event in _LOGGED))
        member.last = max(seq, member.last or 0)

    def _end(self, member: Member, *, pause: float | None = None) -> None:
        """The stream is over. Come back after `pause`, or the server's, or one that grows."""
        if member.is_current:
            member.cuts.append(Cut(time.monotonic(), member._told, member._retry_seconds))
        elif not member._head_is_read:
            member.failures += 1
        self._close(member)
        if not self._returns:
            return
        if pause is None:
            pause, member._retry_seconds = member._retry_seconds, None
        if pause is None:
            pause = member._pause * uniform(0.7, 1.3)
            member._pause = min(2 * member._pause, _LONGEST_PAUSE_SECONDS)
        self._come_back(member, pause)

    def _close(self, member: Member) -> None:
        if not member._head_is_read:
            self._knocking -= 1
        del self._by_fd[member._sock.fileno()]
        with suppress(OSError):
            self._epoll.unregister(member._sock.fileno())
        member._sock.close()
        member._sock, member.is_current = None, False

    def _come_back(self, member: Member, pause: float) -> None:
        heapq.heappush(self._due, (time.monotonic() + pause, next(self._order), member))


def _seq(cursor: str) -> int:
    return int(cursor.rpartition("-")[2])


def as_many_as(wanted: int, *, when_slow: int) -> int:
    """How many streams to open: fewer on a machine that is busy with other things."""
    return when_slow if os.getloadavg()[0] > 1.5 * os.cpu_count() else wanted


def busiest_second(times: Iterable[float]) -> int:
    """The most of `times` that lie within one second."""
    ordered, most, begin = sorted(times), 0, 0
    for n, at in enumerate(ordered):
        while at - ordered[begin] >= 1:
            begin += 1
        most = max(most, n - begin + 1)
    return most
