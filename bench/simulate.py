"""What N open pages need, from what one worker was measured to do: `python -m bench.simulate [--pages …] [--publishes …]`.

A simulation, not a formula, because of the queue: messages come at random, each takes a worker as long as its streams take
to write to, and one that comes while the worker still writes waits. Only what was measured goes in (`WorkerCapacity`); a
test holds the simulation to the measured points. What it leaves out: the network, the kernel's memory, and proxies.
"""

import argparse
import math
import random
import statistics
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerCapacity:
    """One worker on one core of a two-core Debian box; see docs/scaling.md for where each comes from."""

    streams_per_second: float = 125_000  # streams that one message is written to in a second
    first_write_ms: float = 2.0  # commit → ring → the log read → the first write
    publishes_per_second: float = 60  # one PostgreSQL on a slow disk, each publish its own transaction
    streams_per_worker: int = 12_000  # STREAMS_PER_WORKER
    workers_per_node: int = 4
    polls_per_second: float = 1.0  # of the log, by each worker, whatever happens
    page_reconnect_seconds: float = 600.0  # STREAM_MAX_AGE_SECONDS
    openings_per_second: float = 500  # streams that one worker opens: who is it, what did they miss


@dataclass(frozen=True, slots=True)
class CapacityEstimate:
    """What a number of pages takes, and how soon a message is on the last of them."""

    workers: int
    nodes: int
    reads_per_second: float  # of the log, by all workers
    notifications_per_second: float  # that Redis passes on
    openings_per_second: float  # streams that begin anew because of their age
    busy_share: float  # share of a worker's core that writing takes
    median_ms: float
    p99_ms: float


def estimate_capacity(
    pages: int, publishes: float, capacity: WorkerCapacity = WorkerCapacity(), *, messages: int = 2000, seed: int = 1
) -> CapacityEstimate:
    """For `pages` open pages that all get `publishes` messages a second. Raises ValueError beyond what the log takes."""
    if publishes > capacity.publishes_per_second:
        raise ValueError(f"one log takes {capacity.publishes_per_second:,.0f} publishes a second: batch them, or shard")
    min_workers_for_streams = math.ceil(pages / capacity.streams_per_worker)
    # no more than half of a core for writing: the other half is for pages, and for the day when a node is missing
    min_workers_for_writes = math.ceil(pages * publishes / capacity.streams_per_second / 0.5)
    workers = max(1, min_workers_for_streams, min_workers_for_writes)
    latencies_ms = simulate_latencies(pages / workers, publishes, capacity, messages=messages, seed=seed)
    return CapacityEstimate(
        workers=workers,
        nodes=max(2, math.ceil(workers / capacity.workers_per_node) + 1),  # one may die
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
    """Milliseconds from each message's commit to the last of a worker's streams, messages coming at random."""
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
