"""How long a fan-out keeps the rest of its worker waiting: the real hub and its sockets, beside a timer of one millisecond."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import gevent
from gevent.server import StreamServer

from bench.client import Load
from broadcast.domain import clock
from broadcast.domain.audience import Everyone, Viewer
from broadcast.domain.events import Cursor, Event, EventType, encode
from broadcast.streams import sse
from broadcast.streams.hub import Hub, Limits
from broadcast.streams.socket_transport import Sockets
from tests.ports import free_port

EVENTS = 20
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Stall:
    """The timer's longest delay in milliseconds, with and without fan-outs."""

    streams: int
    longest_ms: float
    idle_ms: float


def measure(programs: Path, streams: int) -> Stall:
    """Run in a process of its own, on core 0."""
    words = [sys.executable, "-m", "bench.stall", str(programs), str(streams)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return Stall(streams, float(said[0]), float(said[1]))


class Ticker:
    """Asks to be woken after a millisecond, again and again; `longest` is the worst delay."""

    def __init__(self) -> None:
        self.longest = 0.0
        gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            began = time.perf_counter()
            gevent.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - began - 0.001)


def _event(seq: int) -> Event:
    payload = encode({"id": 1, "title": "x" * 110})
    return Event(seq, "bench", EventType.MESSAGE, 1, Everyone(), payload, clock.now())


def _main(programs: Path, streams: int) -> None:
    os.sched_setaffinity(0, {0})
    hub = Hub({"json": sse.encode_json}, Limits(streams=streams, per_user=streams, per_address=streams))
    hub.start(Cursor("bench", 0))
    sockets, port = Sockets(hub), free_port()

    def open_stream(sock, address) -> None:
        sock.recv(4096)
        viewer = Viewer(len(hub) + 1, frozenset())
        connection = hub.subscribe(
            viewer, representation="json", session="", address="", looked_up_at=0, now=clock.now()
        )
        connection.prelude = iter([sse.json_frame("CONNECTED", {})])
        sockets.take_over(connection, sock, _HEAD)

    server = StreamServer(("127.0.0.1", port), open_stream, backlog=4096)
    server.start()
    (tokens := programs / "nobody").write_text("nobody\n")
    load = Load(programs, port, streams, "/", tokens=tokens)
    try:
        gevent.get_hub().threadpool.apply(load.ready)
        ticker = Ticker()
        gevent.sleep(2)
        idle, ticker.longest = ticker.longest, 0.0
        for seq in range(1, EVENTS + 1):
            hub.deliver([_event(seq)])
        print(ticker.longest * 1000, idle * 1000)
    finally:
        load.end()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
