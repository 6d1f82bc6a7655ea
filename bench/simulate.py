"""What N open pages need, from measurements of one worker: `python -m bench.simulate [--pages …] [--publishes …]`.

A simulation, not a formula, because of queueing: messages arrive at random, each keeps a worker busy while it writes to
its streams, and a message that arrives meanwhile waits. Its only inputs are measurements (`WorkerCapacity`); a test
compares it with measured points. It ignores the network, the kernel's memory, and proxies.
"""

import argparse
import math
import random
import statistics
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerCapacity:
    """One worker on one core of a two-core Debian machine; docs/scaling.md has the source of each value."""

    streams_per_second: float = 125_000  # writes of one message per second
    first_write_ms: float = 2.0  # commit → notification → log read → first write
    publishes_per_second: float = 60  # one PostgreSQL on a slow disk, one transaction per publish
    streams_per_worker: int = 12_000  # STREAMS_PER_WORKER
    workers_per_node: int = 4
    polls_per_second: float = 1.0  # of the log, by each worker, even when idle
    page_reconnect_seconds: float = 600.0  # STREAM_MAX_AGE_SECONDS
    openings_per_second: float = 500  # streams that one worker opens: authentication and replay


@dataclass(frozen=True, slots=True)
class CapacityEstimate:
    """The resources for a number of pages, and the latency of a message to the last of them."""

    workers: int
    nodes: int
    reads_per_second: float  # of the log, by all workers
    notifications_per_second: float  # that Redis delivers
    openings_per_second: float  # streams that reconnect because of their maximum age
    busy_share: float  # share of a worker's core spent on writing
    median_ms: float
    p99_ms: float


def estimate_capacity(
    pages: int, publishes: float, capacity: WorkerCapacity = WorkerCapacity(), *, messages: int = 2000, seed: int = 1
) -> CapacityEstimate:
    """Estimate for `pages` open pages that all get `publishes` messages/s. Raises ValueError beyond the log's limit."""
    if publishes > capacity.publishes_per_second:
        raise ValueError(f"one log takes {capacity.publishes_per_second:,.0f} publishes a second: batch them, or shard")
    min_workers_for_streams = math.ceil(pages / capacity.streams_per_worker)
    # writing may take half of a core: the other half is for pages, and for when a node is down
    min_workers_for_writes = math.ceil(pages * publishes / capacity.streams_per_second / 0.5)
    workers = max(1, min_workers_for_streams, min_workers_for_writes)
    latencies_ms = simulate_latencies(pages / workers, publishes, capacity, messages=messages, seed=seed)
    return CapacityEstimate(
        workers=workers,
        nodes=max(2, math.ceil(workers / capacity.workers_per_node) + 1),  # one may fail
        reads_per_second=workers * (capacity.polls_per_second + publishes),
        notifications_per_second=workers * publishes,
        openings_per_second=pages / capacity.page_reconnect_seconds,
        busy_share=pages / workers * publishes / capacity.streams_per_second,
        median_ms=statistics.median(latencies_ms),
        p99_ms=sorted(latencies_ms)[int(0.99 * len(latencies_ms))],
    )


def simulate_latencies(
    streams: float, publishes: float, capacity: WorkerCapacity, *, messages: int, seed: int
) -> list[float]:
    """Return the milliseconds from each commit to the write to a worker's last stream; messages arrive at random."""
    rng, latencies_ms = random.Random(seed), []
    arrives_at = free_at = 0.0
    for _ in range(messages):
        arrives_at += rng.expovariate(publishes)
        starts_at = max(arrives_at + capacity.first_write_ms / 1000, free_at)
        free_at = starts_at + streams / capacity.streams_per_second
        latencies_ms.append(1000 * (free_at - arrives_at))
    return latencies_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, nargs="*", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--publishes", type=float, nargs="*", default=[0.1, 1, 10])
    arguments = parser.parse_args()
    print("| pages | messages/s | workers | nodes | log reads/s | openings/s | busy | median | p99 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for pages in arguments.pages:
        for publishes in arguments.publishes:
            estimate = estimate_capacity(pages, publishes)
            print(
                f"| {pages:,} | {publishes:g} | {estimate.workers:,} | {estimate.nodes:,} | {estimate.reads_per_second:,.0f} "
                f"| {estimate.openings_per_second:,.0f} | {estimate.busy_share:.0%} | {estimate.median_ms:.0f} "
                f"ms | {estimate.p99_ms:.0f} ms |"
            )


if __name__ == "__main__":
    main()
