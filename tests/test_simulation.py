"""The simulation agrees with what was measured, and docs/scaling.md with the simulation."""

import re
import statistics

import pytest

from bench.simulate import Measured, need, waits
from tests.system import TOP

TEXT = (TOP / "docs/scaling.md").read_text()


def test_fan_out_agrees_with_the_measured_one():
    [streams, measured_ms] = re.search(r"one message to ([\d,]+) streams, one worker \| (\d+) ms", TEXT).groups()
    simulated = waits(int(streams.replace(",", "")), 0.1, Measured(), messages=200, seed=1)
    assert statistics.median(simulated) == pytest.approx(float(measured_ms), rel=0.1)


def test_table_is_what_the_simulation_says():
    number, ms = r"([\d,]+)", r"(\d+) ms"
    columns = r" \| ".join([*[number] * 6, ms, ms])
    rows = re.findall(rf"^\| {columns} \|$", TEXT, re.M)
    assert len(rows) == 6
    for row in rows:
        pages, publishes, *told = (int(value.replace(",", "")) for value in row)
        of = need(pages, publishes)
        figures = [of.workers, of.nodes, of.reads_per_second, of.openings_per_second, of.median_ms, of.p99_ms]
        assert told == [round(figure) for figure in figures], row


def test_messages_that_come_while_a_worker_writes_wait():
    alone = statistics.mean(waits(10_000, 0.01, Measured(), messages=500, seed=1))
    crowded = statistics.mean(waits(10_000, 10, Measured(), messages=500, seed=1))
    assert crowded > 2 * alone


def test_more_than_the_log_takes_is_refused():
    with pytest.raises(ValueError, match="batch"):
        need(1000, Measured().publishes_per_second + 1)
