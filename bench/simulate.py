"""What N open pages need, from what one worker was measured to do: `python -m bench.simulate [--pages …] [--publishes …]`.

A simulation, not a formula, because of the queue: messages come at random, each takes a worker as long as its streams take to
write to, and one that comes while the worker still writes waits. Only what was measured goes in (`Measured`); a test holds
the simulation to the measured points. What it leaves out: the network, the kernel's memory, and proxies.
"""

import argparse
import math
import random
import statistics
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """One worker on one core of a two-core Debian box; see docs/scaling.md for where each comes from."""

    streams_per_second: float = 125_000  # streams that one message is written to in a second
    before_the_first_ms: float = 2.0  # commit → ring → the log read → the first write
    publishes_per_second: float = 60  # one PostgreSQL on a slow disk, each publish its own transaction
    streams_per_worker: int = 12_000  # STREAMS_PER_WORKER
    workers_per_node: int = 4
    polls_per_second: float = 1.0  # of the log, by each worker, whatever happens
    pages_return_after_seconds: float = 600.0  # STREAM_MAX_AGE_SECONDS
    openings_per_second: float = 500  # streams that one worker opens: who is it, what did they miss


@dataclass(frozen=True, slots=True)
class Need:
    """What a number of pages takes, and how soon a message is on the last of them."""

    workers: int
    nodes: int
    reads_per_second: float  # of the log, by all workers
    rings_per_second: float  # that Redis passes on
    openings_per_second: float  # streams that begin anew because of their age
    busy: float  # share of a worker's core that writing takes
    median_ms: float
    p99_ms: float


def need(pages: int, publishes: float, given: Measured = Measured(), *, messages: int = 2000, seed: int = 1) -> Need:
    """For `pages` open pages that all get `publishes` messages a second. Raises ValueError beyond what the log takes."""
    if publishes > given.publishes_per_second:
        raise ValueError(f"one log takes {given.publishes_per_second:,.0f} publishes a second: batch them, or shard")
    fewest = math.ceil(pages / given.streams_per_worker)
    # no more than half of a core for writing: the other half is for pages, and for the day when a node is missing
    for_writing = math.ceil(pages * publishes / given.streams_per_second / 0.5)
    workers = max(1, fewest, for_writing)
    took = waits(pages / workers, publishes, given, messages=messages, seed=seed)
    return Need(
        workers=workers,
        nodes=max(2, math.ceil(workers / given.workers_per_node) + 1),  # one may die
        reads_per_second=workers * (given.polls_per_second + publishes),
        rings_per_second=workers * publishes,
        openings_per_second=pages / given.pages_return_after_seconds,
        busy=pages / workers * publishes / given.streams_per_second,
        median_ms=statistics.median(took),
        p99_ms=sorted(took)[int(0.99 * len(took))],
    )


def waits(streams: float, publishes: float, given: Measured, *, messages: int, seed: int) -> list[float]:
    """Milliseconds from each message's commit to the last of a worker's streams, messages coming at random."""
    choose, took = random.Random(seed), []
    comes = free = 0.0
    for _ in range(messages):
        comes += choose.expovariate(publishes)
        begins = max(comes + given.before_the_first_ms / 1000, free)
        free = begins + streams / given.streams_per_second
        took.append(1000 * (free - comes))
    return took


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pages", type=int, nargs="*", default=[100_000, 1_000_000, 10_000_000])
    options.add_argument("--publishes", type=float, nargs="*", default=[0.1, 1, 10])
    given = options.parse_args()
    print("| pages | messages/s | workers | nodes | log reads/s | openings/s | busy | median | p99 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for pages in given.pages:
        for publishes in given.publishes:
            of = need(pages, publishes)
            print(
                f"| {pages:,} | {publishes:g} | {of.workers:,} | {of.nodes:,} | {of.reads_per_second:,.0f} "
                f"| {of.openings_per_second:,.0f} | {of.busy:.0%} | {of.median_ms:.0f} ms | {of.p99_ms:.0f} ms |"
            )


if __name__ == "__main__":
    main()
