"""Nine in the morning, with two workers: everybody opens the page and then its stream. Then all streams are cut off at
once and return with their cursors.
"""

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.application import Application, run_application
from bench.client import LoadClient, build_get, read_cpu_seconds
from bench.table import Row, get_quantile, median_ms

LIVE_MESSAGES = 20
MISSED_EVENTS = 20  # events published while all were cut off
_IDLE_SECONDS = 10


def measure(programs: Path, people: int) -> Iterator[Row]:
    with run_application(programs / "morning", people_count=people, workers=2) as app:
        app.publish(LIVE_MESSAGES)
        assets = _find_uncached_assets(app)
        stream = replace(app.stream(), lines=app.cookies, request=build_get("/inbox/stream", "Cookie: {}"))
        stream = replace(stream, pages=(build_get("/inbox", "Cookie: {}", accept="text/html"), *assets))
        load = LoadClient(programs, stream, people)
        rate = people / load.wait_until_open()
        yield Row(f"people a second, {people:,} at once: page, {len(assets)} file not in the cache, stream", rate)
        app.wait_until_idle()
        cpu_seconds_before = sum(map(read_cpu_seconds, app.pids))
        time.sleep(_IDLE_SECONDS)
        cores = (sum(map(read_cpu_seconds, app.pids)) - cpu_seconds_before) / _IDLE_SECONDS
        yield Row(f"{people:,} idle streams on two workers, of a core", cores)
        yield from _measure_storm(app, programs, load)


def _measure_storm(app: Application, programs: Path, load: LoadClient) -> Iterator[Row]:
    cursor = app.get_cursor()
    load.stop()  # every socket closes at once
    app.send(MISSED_EVENTS)
    visitor = Visitor(app)
    returned = LoadClient(programs, app.stream(f"/api/sse/connect?after={cursor}"), load.streams)
    yield Row(f"{load.streams:,} streams cut off at once: all current", returned.wait_until_open(), unit=" s")
    durations = visitor.stop()
    returned.stop()
    p95 = f", p95 {1000 * get_quantile(durations, 0.95):.0f} ms"
    yield Row("pages of one more person meanwhile, p50", median_ms(durations), unit=" ms", ours_note=p95)


def _find_uncached_assets(app: Application) -> list[str]:
    """Requests for what a page refers to and a browser asks for again, though it has it: each with the ETag it has."""
    browser = app.open_browser()
    requests = []
    for path in sorted(set(re.findall(r'(?:src|href)="(/static/[^"]+)"', browser.get("/inbox").decode()))):
        browser.get(path)
        if "immutable" not in browser.answer.headers["Cache-Control"]:
            requests.append(
                build_get(path, "Cookie: {}", f"If-None-Match: {browser.answer.headers['ETag']}", accept="*/*")
            )
    return requests


class Visitor:
    """Loads the inbox five times per second."""

    def __init__(self, app: Application):
        self._browser = app.open_browser()
        self._durations: list[float] = []
        self._stop_requested = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop_requested.wait(0.2):
            started_at = time.monotonic()
            self._browser.get("/inbox")
            self._durations.append(time.monotonic() - started_at)

    def stop(self) -> list[float]:
        """Stop; return the durations in seconds."""
        self._stop_requested.set()
        self._thread.join()
        return self._durations
