"""Receipts of a burst: one event that N people see first is N new rows. What that costs, and the next event beside it."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from bench.application import Application, run_application
from bench.client import LoadClient
from bench.pages import each_database
from bench.table import Row, get_quantile
from bench.ticks import Ticks

_POLL_SECONDS = 0.002


def measure(programs: Path, streams: int, events: int) -> Iterator[Row]:
    with each_database() as databases:
        for name, url in databases.items():
            ticks = Ticks(programs / f"ticks-{name}")
            with run_application(
                programs / f"receipts-{name}", people_count=streams, database_url=url, **ticks.settings
            ) as app:
                load = LoadClient(programs, app.live_stream(), streams)
                try:
                    load.wait_until_open()
                    yield from _measure_events(app, load, name, events, ticks)
                finally:
                    load.stop()


def _measure_events(app: Application, load: LoadClient, database: str, events: int, ticks: Ticks) -> Iterator[Row]:
    """Pairs of events: the first when nothing is to be written, the second when its rows are being written."""
    ids = app.publish(2 * events, targetType="ROLE", targetIds=["ops"])
    app.wait_until_idle()
    alone, beside, rates, stalls = [], [], [], []
    for n, (first, second) in enumerate(zip(ids[::2], ids[1::2], strict=True)):
        ticks.clear()
        alone.append(_send(app, load, 2 * n + 1, first))
        _wait_for_receipts(app, [first], 1)
        beside.append(_send(app, load, 2 * n + 2, second))
        _wait_for_receipts(app, [first, second], load.streams + 1)
        started_at, written = time.monotonic(), app.count_receipts([first, second])
        _wait_for_receipts(app, [first, second], 2 * load.streams)
        if written < 1.5 * load.streams:
            rates.append((2 * load.streams - written) / (time.monotonic() - started_at))
        stalls.append(ticks.read_longest_ms())
    what = f"the next event → last of {load.streams:,} while rows are written, {database}"
    for words, share in (("p50", 0.5), ("p99", 0.99)):
        values = [1000 * get_quantile(seconds, share) for seconds in (beside, alone)]
        yield Row(f"{what}: {words}", values[0], "without", values[1], " ms")
    yield Row(f"receipts of an event written a second, {database}", statistics.median(rates))
    yield Row(f"longest stall of the worker's loop, {database}", max(stalls), unit=" ms")


def _send(app: Application, load: LoadClient, number: int, broadcast_id: int) -> float:
    [sent_at] = app.send(1, broadcast_id)
    return load.wait_for_message(number) - sent_at


def _wait_for_receipts(app: Application, broadcast_ids: list[int], count: int) -> None:
    deadline = time.monotonic() + 60
    while app.count_receipts(broadcast_ids) < count:
        assert time.monotonic() < deadline, "receipts are not written"
        time.sleep(_POLL_SECONDS)
