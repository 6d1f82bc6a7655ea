"""Opening streams, fan-out, memory: the application beside a C loop, nchan and other servers.

Ours and one other server take turns message by message, so that noise of the machine meets both alike; the streams of
the others are open and idle meanwhile.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.application import Application, run_application
from bench.client import LoadClient, Target, read_cpu_seconds, read_memory
from bench.peers import Peer, open_peers
from bench.table import Row, get_quantile

REPLAYED_EVENTS, BURST_ROUNDS, BURST_MESSAGES = 20, 3, 100
_CLOSING_SECONDS = 2  # until a server has noticed that its clients are gone


@dataclass
class Contender:
    """A server with its open streams and its measurements. `sent_count` counts its messages."""

    peer: Peer | Application
    load: LoadClient
    opened_per_second: float
    bytes_per_stream: float
    sent_count: int = 0
    delivery_seconds: list[float] = field(default_factory=list)  # sent → received by the last stream
    deliveries_per_cpu_second: list[float] = field(default_factory=list)  # of messages sent back to back
    client_busy_shares: list[float] = field(default_factory=list)

    def measure_message(self) -> None:
        """Send one message and wait until the last stream has it."""
        cpu_seconds_before, started_at = read_cpu_seconds(self.load.process.pid), time.monotonic()
        [sent_at] = self.peer.send(1)
        self.sent_count += 1
        self.delivery_seconds.append(self.load.wait_for_message(self.sent_count) - sent_at)
        cpu_seconds = read_cpu_seconds(self.load.process.pid) - cpu_seconds_before
        self.client_busy_shares.append(cpu_seconds / (time.monotonic() - started_at))

    def measure_burst(self, count: int) -> None:
        """Send `count` messages without waiting."""
        cpu_seconds_before = _read_cpu_seconds(self.peer)
        self.peer.send(count)
        self.sent_count += count
        self.load.wait_for_message(self.sent_count)
        cpu_seconds = _read_cpu_seconds(self.peer) - cpu_seconds_before
        self.deliveries_per_cpu_second.append(self.load.streams * count / max(cpu_seconds, 0.01))


def measure(programs: Path, streams: int, messages: int) -> Iterator[Row]:
    """Compare every server with the same number of streams."""
    with ExitStack() as stack:
        app = stack.enter_context(run_application(programs / "streams", people_count=streams))
        peers = open_peers(stack, programs, streams)
        with ExitStack() as loads:
            ours, *others = [_open_streams(loads, programs, peer, streams) for peer in (app, *peers)]
            for other in others:
                yield from _compare(ours, other, messages)
        yield from _compare_opening(app, peers, programs, streams)


def _compare_opening(app: Application, peers: list[Peer], programs: Path, streams: int) -> Iterator[Row]:
    """Rates of opening with a replay by cursor, for each server that has one, and ours without a cursor."""
    app.publish(REPLAYED_EVENTS)
    app.wait_until_idle()
    rates = {"by cursor": _measure_opening(programs, app.replay_stream(REPLAYED_EVENTS), streams)}
    app.wait_until_idle()
    rates["without a cursor"] = _measure_opening(programs, app.stream(), streams)
    theirs = {peer.name: _measure_opening(programs, peer.replay_stream(REPLAYED_EVENTS), streams) for peer in peers}
    for how, rate in rates.items():
        what = f"streams opened a second, {how}: {REPLAYED_EVENTS} messages"
        yield from (Row(what, rate, name, their_rate) for name, their_rate in theirs.items() if their_rate)


def _measure_opening(programs: Path, target: Target | None, streams: int) -> float:
    """Streams a second until all are current; 0 for a server that replays nothing."""
    if target is None:
        return 0.0
    load = LoadClient(programs, target, streams)
    try:
        return streams / load.wait_until_open()
    finally:
        load.stop()
        time.sleep(_CLOSING_SECONDS)


def _open_streams(stack: ExitStack, programs: Path, peer: Peer | Application, streams: int) -> Contender:
    bytes_before = sum(map(read_memory, peer.pids))
    load = LoadClient(programs, peer.live_stream(), streams)
    stack.callback(load.stop)
    rate = streams / load.wait_until_open()
    return Contender(peer, load, rate, (sum(map(read_memory, peer.pids)) - bytes_before) / streams)


def _compare(ours: Contender, other: Contender, messages: int) -> Iterator[Row]:
    """Send `messages` to each, one at a time, then bursts."""
    for _ in range(messages):
        ours.measure_message()
        other.measure_message()
    for _ in range(BURST_ROUNDS):
        ours.measure_burst(BURST_MESSAGES)
        other.measure_burst(BURST_MESSAGES)
    name, streams = other.peer.name, ours.load.streams
    our_ms, their_ms = ([1000 * s for s in it.delivery_seconds[-messages:]] for it in (ours, other))
    busy = statistics.median(ours.client_busy_shares)
    for words, share in (("p50", 0.5), ("p99", 0.99)):
        what = f"one message → last of {streams:,}, {words}"
        yield Row(what, get_quantile(our_ms, share), name, get_quantile(their_ms, share), " ms")
    rates = [statistics.median(it.deliveries_per_cpu_second[-BURST_ROUNDS:]) for it in (ours, other)]
    yield Row("deliveries a second of processor time, back to back", rates[0], name, rates[1])
    if other.bytes_per_stream > 100:  # the C loop keeps nothing
        memory = [it.bytes_per_stream / 1024 for it in (ours, other)]
        yield Row("memory of an idle stream", memory[0], name, memory[1], " KiB")
    yield Row("streams opened a second, at the head", ours.opened_per_second, name, other.opened_per_second)
    if busy > 0.9:
        print(f"the client was busy for {busy:.2f} of the time: the figures are its own")


def _read_cpu_seconds(peer: Peer | Application) -> float:
    return sum(map(read_cpu_seconds, peer.pids))
