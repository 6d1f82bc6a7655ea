"""Receipts of a burst: one event that N people see first is N new rows. What that costs, and the next event beside it."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select

from bench.application import Application, run_application
from bench.client import LoadClient
from bench.pages import each_database
from bench.table import Row, get_quantile
from bench.ticks import Ticks
from broadcast.domain import clock
from broadcast.store.database import db
from broadcast.store.models import User
from broadcast.streams.receipt_buffer import ReceiptBuffer

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
    alone, beside, stalls = [], [], []
    for n, (first, second) in enumerate(zip(ids[::2], ids[1::2], strict=True)):
        ticks.clear()
        alone.append(_send(app, load, 2 * n + 1, first))
        _wait_for_receipts(app, [first], 1)
        beside.append(_send(app, load, 2 * n + 2, second))
        _wait_for_receipts(app, [first, second], 2 * load.streams)
        stalls.append(ticks.read_longest_ms())
    what = f"the next event → last of {load.streams:,} while rows are written, {database}"
    for words, share in (("p50", 0.5), ("p99", 0.99)):
        values = [1000 * get_quantile(seconds, share) for seconds in (beside, alone)]
        yield Row(f"{what}: {words}", values[0], "without", values[1], " ms")
    rates = [
        _measure_writing(app, broadcast_id) for broadcast_id in app.publish(3, targetType="ROLE", targetIds=["ops"])
    ]
    yield Row(f"receipts written a second, {database}", statistics.median(rates))
    yield Row(f"longest stall of the worker's loop, {database}", max(stalls), unit=" ms")


def _measure_writing(app: Application, broadcast_id: int) -> float:
    """Receipts of everybody written a second, by this process alone, with the pauses for others between batches."""
    with app.app.app_context():
        user_ids = db.session.scalars(select(User.id)).all()
        buffer, started_at = ReceiptBuffer(), time.perf_counter()
        buffer.add(broadcast_id, user_ids)
        buffer.flush(clock.now())
    return len(user_ids) / (time.perf_counter() - started_at)


def _send(app: Application, load: LoadClient, number: int, broadcast_id: int) -> float:
    [sent_at] = app.send(1, broadcast_id)
    return load.wait_for_message(number) - sent_at


def _wait_for_receipts(app: Application, broadcast_ids: list[int], count: int) -> None:
    deadline = time.monotonic() + 60
    while app.count_receipts(broadcast_ids) < count:
        assert time.monotonic() < deadline, "receipts are not written"
        time.sleep(_POLL_SECONDS)
