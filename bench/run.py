"""`make bench`: streams of the real application, beside a plain C loop, nchan and a greenlet for each stream.

The server's worker has core 0 for itself, the load client core 1; how busy the client was is told too: near 1, a figure is the
client's. Ours and one other take turns, message by message, so that a noisy moment of the machine meets both alike; the streams
of the rest are open and idle. What is reported are ratios within one run: the absolute figures belong to this machine.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import peers, stall, storm
from bench.application import OPS, Application, application
from bench.client import Load, build, cpu_seconds, memory_of
from broadcast.worker import gauges
from tests.ports import free_port

ROUNDS, BURST_ROUNDS, BURST = 200, 3, 100
REPLAYED = 20


@dataclass
class Contender:
    """A server with its open streams, and what was measured of it. `sent` counts its messages."""

    name: str
    load: Load
    send: Callable[[int], list[float]]
    sent: int = 0
    connects: float = 0.0  # a second
    seconds: list[float] = field(default_factory=list)  # sent → had by the last stream
    rates: list[float] = field(default_factory=list)  # deliveries/s, back to back
    ours: float = 1.0  # our rate while we took turns with this one : its rate
    our_burst: float = 1.0  # the same, back to back
    busy: list[float] = field(default_factory=list)  # share of a core that the load client used

    def one(self) -> None:
        """One message, and wait until the last stream has it."""
        used, began = cpu_seconds(self.load.process.pid), time.monotonic()
        [at] = self.send(1)
        self.sent += 1
        self.seconds.append(self.load.got(self.sent) - at)
        self.busy.append((cpu_seconds(self.load.process.pid) - used) / (time.monotonic() - began))

    def burst(self, count: int) -> None:
        """`count` messages without waiting."""
        at = self.send(count)[0]
        self.sent += count
        self.rates.append(self.load.streams * count / (self.load.got(self.sent) - at))

    @property
    def rate(self) -> float:
        """Deliveries/s, one at a time."""
        return self.load.streams / statistics.median(self.seconds)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--streams", type=int, default=5000)
    streams = asked.parse_args().streams
    with tempfile.TemporaryDirectory() as name:
        folder = build(Path(name))
        compare(folder, streams)
        print_stall(stall.measure(folder, 2 * streams))
        storm.measure(folder, 2 * streams)


def compare(folder: Path, streams: int) -> None:
    """Measure everybody with the same number of streams, and print it."""
    (folder / "app").mkdir()
    with ExitStack() as stack:
        app = stack.enter_context(application(folder / "app", people_count=streams))
        ours, figures = open_ours(stack, folder, app, streams)
        others = open_peers(stack, folder, streams, app.tokens)
        for other in others:
            take_turns(ours, other)
        figures["role writes"] = role_writes(app)
        print_table([ours, *others], figures, streams)


def take_turns(ours: Contender, other: Contender) -> None:
    """ROUNDS messages of each, one at a time, and BURST_ROUNDS times BURST back to back."""
    for _ in range(ROUNDS):
        ours.one()
        other.one()
    other.ours = statistics.median(other.seconds) / statistics.median(ours.seconds[-ROUNDS:])
    for _ in range(BURST_ROUNDS):
        ours.burst(BURST)
        other.burst(BURST)
    other.our_burst = statistics.median(ours.rates[-BURST_ROUNDS:]) / statistics.median(other.rates)


def open_ours(stack: ExitStack, folder: Path, app: Application, streams: int) -> tuple[Contender, dict]:
    worker = app.system.workers()[0]
    app.send(REPLAYED)
    before = memory_of(worker)
    load = Load(folder, app.port, streams, f"{app.path}?after={app.cursor(back=REPLAYED)}", tokens=app.tokens)
    stack.callback(load.end)
    connects = streams / load.ready()
    figures = {"bytes": (memory_of(worker) - before) / streams}
    used = cpu_seconds(worker)
    time.sleep(15)
    figures["idle"] = (cpu_seconds(worker) - used) / 15
    return Contender("this application", load, app.send, sent=REPLAYED, connects=connects), figures


def open_peers(stack: ExitStack, folder: Path, streams: int, tokens: Path) -> list[Contender]:
    opened = []
    for name, start, hello in (
        ("C, only `send()`", lambda port: peers.limit(folder, port, streams), ""),
        ("nchan (nginx)", peers.nchan, ": hi"),
        ("a greenlet for each stream", peers.greenlets, ""),
    ):
        port = free_port()
        peer = stack.enter_context(start(port))
        if peer is None:
            print(f"{name}: not installed")
            continue
        load = Load(folder, port, streams, peer.path, tokens=tokens, hello=hello)
        stack.callback(load.end)
        opened.append(Contender(name, load, peer.send, connects=streams / load.ready()))
    return opened


def role_writes(app: Application) -> int:
    """How many sockets a broadcast to the role ops touches."""
    wait = gauges.SECONDS + 1  # until the metrics are up to date
    time.sleep(wait)
    before = metric(app, "broadcast_stream_writes_total")
    app.send(1, to_ops=True)
    time.sleep(wait)
    return int(metric(app, "broadcast_stream_writes_total") - before)


def metric(app: Application, name: str) -> float:
    text = urllib.request.urlopen(f"{app.system.url}/metrics", timeout=10).read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " "))


def print_table(contenders: list[Contender], figures: dict, streams: int) -> None:
    ours = contenders[0]
    print(f"\n{streams:,} streams, one worker, messages of about 200 bytes; {machine()}\n")
    print("| | deliveries/s, one at a time | ours : this | client busy | deliveries/s, back to back | ours : this |")
    print("|---|---|---|---|---|---|")
    for row in contenders:
        one = f"{row.rate:,.0f} | {row.ours:.2f} | {statistics.median(row.busy):.2f}"
        print(f"| {row.name} | {one} | {statistics.median(row.rates):,.0f} | {row.our_burst:.2f} |")
    took = sorted(second * 1000 for second in ours.seconds)
    p99 = took[int(len(took) * 0.99)]
    print("\n| of this application | |\n|---|---|")
    print(f"| commit → last of {streams:,} clients | median {statistics.median(took):.0f} ms, p99 {p99:.0f} ms |")
    print(f"| memory for each idle stream in the worker | {figures['bytes'] / 1024:.2f} KiB |")
    bare = f"a bare Flask route: {contenders[-1].connects:,.0f}, {ours.connects / contenders[-1].connects:.2f}"
    print(f"| connects/s, with token and replay of {REPLAYED} events | {ours.connects:,.0f} ({bare}) |")
    print(f"| a broadcast to a role that {OPS} have | touches {figures['role writes']} sockets |")
    print(f"| {streams:,} idle streams | {figures['idle']:.3f} of a core |")


def print_stall(found: stall.Stall) -> None:
    print(
        f"| other work in the worker during a fan-out to {found.streams:,} | waits at most {found.longest_ms:.1f} ms ",
        end="",
    )
    print(f"(without one {found.idle_ms:.1f} ms) |")


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, Python {sys.version.split()[0]}"


if __name__ == "__main__":
    main()
