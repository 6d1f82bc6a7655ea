"""What a page costs beside `/healthz`.

Each request comes from another user's browser session, round robin; the pages take turns with `/healthz`, so that noise
of the machine meets all alike. A duration includes this client's. Pages a second: eight requests at a time.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.application import Application, run_application
from bench.table import Row, get_quantile, median_ms
from tests.support.servers import run_postgres

BASE, *PAGES = PATHS = ("/healthz", "/inbox", "/api/user/messages")
LIVE_MESSAGES = (0, 20, 200)
AT_ONCE = 8


@contextmanager
def each_database() -> Iterator[dict[str, str | None]]:
    """The databases of this machine: name → URL. SQLite, and PostgreSQL if it is installed."""
    if not any(Path("/usr/lib/postgresql").glob("*/bin")):
        yield {"SQLite": None}
        return
    with run_postgres(durable=True) as url:
        yield {"SQLite": None, "PostgreSQL": url}


def measure(programs: Path, users: int, rounds: int) -> Iterator[Row]:
    with each_database() as databases:
        for name, url in databases.items():
            with run_application(programs / f"pages-{name}", people_count=users, database_url=url) as app:
                published = 0
                for live in LIVE_MESSAGES:
                    app.publish(live - published)
                    published = live
                    yield from _measure_pages(app, f"{live} live, {name}", rounds)


def _measure_pages(app: Application, where: str, rounds: int) -> Iterator[Row]:
    browsers = app.open_browsers()
    for browser in browsers:  # first visits: receipts, last use
        browser.get(PAGES[0])
    app.wait_until_idle()
    durations: dict[str, list[float]] = {path: [] for path in PATHS}
    rates: dict[str, list[float]] = {path: [] for path in PATHS}
    for turn in range(rounds):
        group = [browsers[(turn * AT_ONCE + n) % len(browsers)] for n in range(AT_ONCE)]
        for path in PATHS:
            for browser in group:
                started_at = time.perf_counter()
                browser.get(path)
                durations[path].append(time.perf_counter() - started_at)
            started_at = time.perf_counter()
            for browser in group:
                browser.start_get(path)
            for browser in group:
                browser.finish_get()
            rates[path].append(AT_ONCE / (time.perf_counter() - started_at))
    for browser in browsers:
        browser.close()
    notes = {
        path: f", p95 {1000 * get_quantile(durations[path], 0.95):.1f} ms, {statistics.median(rates[path]):,.0f}/s"
        for path in PATHS
    }
    base_ms = median_ms(durations[BASE])
    for path in PAGES:
        what = f"`GET {path}`, {where}: p50"
        yield Row(what, median_ms(durations[path]), f"`{BASE}`", base_ms, " ms", notes[path], notes[BASE])
