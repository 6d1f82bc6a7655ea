"""`make bench`: streams of the application, compared with a plain C loop, nchan and a greenlet per stream.

The server's worker has core 0 for itself, the load client core 1. The client's CPU share is reported too: near 1, the
client is the bottleneck. Ours and one other server alternate message by message, so that noise of the machine affects
both alike; the streams of the others are open and idle. Results are ratios within one run: absolute values depend on
the machine.
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
from bench.application import OPS_USERS, Application, run_application
from bench.client import LoadClient, build, read_cpu_seconds, read_private_bytes
from broadcast.worker import gauges
from tests.support.ports import find_free_port

ROUNDS, BURST_ROUNDS, BURST_MESSAGES = 200, 3, 100
REPLAYED_EVENTS = 20


@dataclass
class Contender:
    """A server with its open streams and its measurements. `sent_count` counts its messages."""

    name: str
    load: LoadClient
    send: Callable[[int], list[float]]
    sent_count: int = 0
    connects_per_second: float = 0.0  # opened streams per second
    delivery_seconds: list[float] = field(default_factory=list)  # sent → received by the last stream
    burst_rates: list[float] = field(default_factory=list)  # deliveries/s of messages sent back to back
    our_rate_ratio: float = 1.0  # our rate while alternating with this one : its rate
    our_burst_ratio: float = 1.0  # the same, back to back
    client_busy_shares: list[float] = field(default_factory=list)  # CPU share of the load client

    def measure_message(self) -> None:
        """Send one message and wait until the last stream has it."""
        cpu_seconds_before, started_at = read_cpu_seconds(self.load.process.pid), time.monotonic()
        [sent_at] = self.send(1)
        self.sent_count += 1
        self.delivery_seconds.append(self.load.wait_for_message(self.sent_count) - sent_at)
        self.client_busy_shares.append(
            (read_cpu_seconds(self.load.process.pid) - cpu_seconds_before) / (time.monotonic() - started_at)
        )

    def measure_burst(self, count: int) -> None:
        """Send `count` messages without waiting."""
        sent_at = self.send(count)[0]
        self.sent_count += count
        self.burst_rates.append(self.load.streams * count / (self.load.wait_for_message(self.sent_count) - sent_at))

    @property
    def rate(self) -> float:
        """Deliveries/s of messages sent one at a time."""
        return self.load.streams / statistics.median(self.delivery_seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=5000)
    streams = parser.parse_args().streams
    with tempfile.TemporaryDirectory() as name:
        folder = build(Path(name))
        compare(folder, streams)
        print_stall(stall.measure(folder, 2 * streams))
        storm.measure(folder, 2 * streams)


def compare(folder: Path, streams: int) -> None:
    """Measure every server with the same number of streams, and print the results."""
    (folder / "app").mkdir()
    with ExitStack() as stack:
        app = stack.enter_context(run_application(folder / "app", people_count=streams))
        ours, figures = open_application(stack, folder, app, streams)
        others = open_peers(stack, folder, streams, app.tokens)
        for other in others:
            measure_alternately(ours, other)
        figures["role writes"] = count_role_writes(app)
        print_table([ours, *others], figures, streams)


def measure_alternately(ours: Contender, other: Contender) -> None:
    """Send ROUNDS messages to each, one at a time, then BURST_ROUNDS bursts of BURST messages."""
    for _ in range(ROUNDS):
        ours.measure_message()
        other.measure_message()
    other.our_rate_ratio = statistics.median(other.delivery_seconds) / statistics.median(
        ours.delivery_seconds[-ROUNDS:]
    )
    for _ in range(BURST_ROUNDS):
        ours.measure_burst(BURST_MESSAGES)
        other.measure_burst(BURST_MESSAGES)
    other.our_burst_ratio = statistics.median(ours.burst_rates[-BURST_ROUNDS:]) / statistics.median(other.burst_rates)


def open_application(stack: ExitStack, folder: Path, app: Application, streams: int) -> tuple[Contender, dict]:
    worker = app.system.get_worker_pids()[0]
    app.send(REPLAYED_EVENTS)
    bytes_before = read_private_bytes(worker)
    load = LoadClient(
        folder, app.port, streams, f"{app.path}?after={app.cursor(events_back=REPLAYED_EVENTS)}", tokens=app.tokens
    )
    stack.callback(load.stop)
    connects = streams / load.wait_until_open()
    figures = {"bytes": (read_private_bytes(worker) - bytes_before) / streams}
    cpu_seconds_before = read_cpu_seconds(worker)
    time.sleep(15)
    figures["idle"] = (read_cpu_seconds(worker) - cpu_seconds_before) / 15
    return Contender(
        "this application", load, app.send, sent_count=REPLAYED_EVENTS, connects_per_second=connects
    ), figures


def open_peers(stack: ExitStack, folder: Path, streams: int, tokens: Path) -> list[Contender]:
    opened = []
    for name, start, hello in (
        ("C, only `send()`", lambda port: peers.run_limit(folder, port, streams), ""),
        ("nchan (nginx)", peers.run_nchan, ": hi"),
        ("a greenlet for each stream", peers.run_greenlets, ""),
    ):
        port = find_free_port()
        peer = stack.enter_context(start(port))
        if peer is None:
            print(f"{name}: not installed")
            continue
        load = LoadClient(folder, port, streams, peer.path, tokens=tokens, hello=hello)
        stack.callback(load.stop)
        opened.append(Contender(name, load, peer.send, connects_per_second=streams / load.wait_until_open()))
    return opened


def count_role_writes(app: Application) -> int:
    """Return how many sockets a broadcast to the role ops writes to."""
    wait = gauges.INTERVAL_SECONDS + 1  # until the metrics are up to date
    time.sleep(wait)
    before = read_metric(app, "broadcast_stream_writes_total")
    app.send(1, to_ops=True)
    time.sleep(wait)
    return int(read_metric(app, "broadcast_stream_writes_total") - before)


def read_metric(app: Application, name: str) -> float:
    text = urllib.request.urlopen(f"{app.system.url}/metrics", timeout=10).read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " "))


def print_table(contenders: list[Contender], figures: dict, streams: int) -> None:
    ours = contenders[0]
    print(f"\n{streams:,} streams, one worker, messages of about 200 bytes; {describe_machine()}\n")
    print("| | deliveries/s, one at a time | ours : this | client busy | deliveries/s, back to back | ours : this |")
    print("|---|---|---|---|---|---|")
    for row in contenders:
        single_columns = f"{row.rate:,.0f} | {row.our_rate_ratio:.2f} | {statistics.median(row.client_busy_shares):.2f}"
        print(
            f"| {row.name} | {single_columns} | {statistics.median(row.burst_rates):,.0f} | {row.our_burst_ratio:.2f} |"
        )
    delivery_ms = sorted(second * 1000 for second in ours.delivery_seconds)
    p99 = delivery_ms[int(len(delivery_ms) * 0.99)]
    print("\n| of this application | |\n|---|---|")
    print(
        f"| commit → last of {streams:,} clients | median {statistics.median(delivery_ms):.0f} ms, p99 {p99:.0f} ms |"
    )
    print(f"| memory for each idle stream in the worker | {figures['bytes'] / 1024:.2f} KiB |")
    bare = contenders[-1].connects_per_second
    bare_route = f"a bare Flask route: {bare:,.0f}, {ours.connects_per_second / bare:.2f}"
    print(
        f"| connects/s, with token and replay of {REPLAYED_EVENTS} events | {ours.connects_per_second:,.0f} ({bare_route}) |"
    )
    print(f"| a broadcast to a role that {OPS_USERS} have | touches {figures['role writes']} sockets |")
    print(f"| {streams:,} idle streams | {figures['idle']:.3f} of a core |")


def print_stall(measured: stall.Stall) -> None:
    print(
        f"| other work in the worker during a fan-out to {measured.streams:,} | waits at most {measured.longest_ms:.1f} ms ",
        end="",
    )
    print(f"(without one {measured.idle_ms:.1f} ms) |")


def describe_machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}, Python {sys.version.split()[0]}"


if __name__ == "__main__":
    main()
