"""How long a fan-out blocks its worker: the real hub and its sockets, next to a timer of one millisecond."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import gevent
from gevent.server import StreamServer

from bench.client import LoadClient
from broadcast.domain import clock
from broadcast.domain.audience import EveryoneAudience, Viewer
from broadcast.domain.events import Cursor, Event, EventType, encode_compact_json
from broadcast.streams import sse
from broadcast.streams.hub import Hub, StreamLimits
from broadcast.streams.socket_transport import SocketTransport
from tests.support.ports import find_free_port

EVENT_COUNT = 20
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Stall:
    """The timer's longest delay in milliseconds, with and without fan-outs."""

    streams: int
    longest_ms: float
    idle_ms: float


def measure(programs: Path, streams: int) -> Stall:
    """Run in a separate process on core 0."""
    arguments = [sys.executable, "-m", "bench.stall", str(programs), str(streams)]
    output = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()
    return Stall(streams, float(output[0]), float(output[1]))


class Ticker:
    """Sleeps one millisecond repeatedly; `longest_delay` is the longest delay."""

    def __init__(self) -> None:
        self.longest_delay = 0.0
        gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            started_at = time.perf_counter()
            gevent.sleep(0.001)
            self.longest_delay = max(self.longest_delay, time.perf_counter() - started_at - 0.001)


def _make_event(seq: int) -> Event:
    payload = encode_compact_json({"id": 1, "title": "x" * 110})
    return Event(seq, "bench", EventType.MESSAGE, 1, EveryoneAudience(), payload, clock.now())


def _main(programs: Path, streams: int) -> None:
    os.sched_setaffinity(0, {0})
    hub = Hub({"json": sse.encode_event_json}, StreamLimits(streams=streams, per_user=streams, per_address=streams))
    hub.start(Cursor("bench", 0))
    sockets, port = SocketTransport(hub), find_free_port()

    def open_stream(sock, address) -> None:
        sock.recv(4096)
        viewer = Viewer(len(hub) + 1, frozenset())
        connection = hub.subscribe(
            viewer, representation="json", session="", address="", viewer_as_of_seq=0, now=clock.now()
        )
        connection.preamble = iter([sse.encode_json_frame("CONNECTED", {})])
        sockets.adopt(connection, sock, _HEAD)

    server = StreamServer(("127.0.0.1", port), open_stream, backlog=4096)
    server.start()
    (tokens := programs / "nobody").write_text("nobody\n")
    load = LoadClient(programs, port, streams, "/", tokens=tokens)
    try:
        gevent.get_hub().threadpool.apply(load.wait_until_open)
        ticker = Ticker()
        gevent.sleep(2)
        idle_delay, ticker.longest_delay = ticker.longest_delay, 0.0
        for seq in range(1, EVENT_COUNT + 1):
            hub.deliver([_make_event(seq)])
        print(ticker.longest_delay * 1000, idle_delay * 1000)
    finally:
        load.stop()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
