"""The simulation agrees with the measurements, and docs/scaling.md with the simulation."""

import re
import statistics

import pytest

from bench.simulate import WorkerCapacity, estimate_capacity, simulate_latencies
from tests.support.system import PROJECT_ROOT

TEXT = (PROJECT_ROOT / "docs/scaling.md").read_text()


def test_fan_out_agrees_with_the_measured_one():
    [streams, measured_ms] = re.search(r"one message to ([\d,]+) streams, one worker \| (\d+) ms", TEXT).groups()
    simulated = simulate_latencies(int(streams.replace(",", "")), 0.1, WorkerCapacity(), messages=200, seed=1)
    assert statistics.median(simulated) == pytest.approx(float(measured_ms), rel=0.1)


def test_table_is_what_the_simulation_says():
    number, ms = r"([\d,]+)", r"(\d+) ms"
    columns = r" \| ".join([*[number] * 6, ms, ms])
    rows = re.findall(rf"^\| {columns} \|$", TEXT, re.M)
    assert len(rows) == 6
    for row in rows:
        pages, publishes, *told = (int(value.replace(",", "")) for value in row)
        of = estimate_capacity(pages, publishes)
        figures = [of.workers, of.nodes, of.reads_per_second, of.openings_per_second, of.median_ms, of.p99_ms]
        assert told == [round(figure) for figure in figures], row


def test_messages_that_come_while_a_worker_writes_wait():
    alone = statistics.mean(simulate_latencies(10_000, 0.01, WorkerCapacity(), messages=500, seed=1))
    crowded = statistics.mean(simulate_latencies(10_000, 10, WorkerCapacity(), messages=500, seed=1))
    assert crowded > 2 * alone


def test_more_than_the_log_takes_is_refused():
    with pytest.raises(ValueError, match="batch"):
        estimate_capacity(1000, WorkerCapacity().publishes_per_second + 1)
