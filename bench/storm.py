"""Ten thousand streams disconnect at once and reconnect: time until all are current, and page latency meanwhile."""

import statistics
import threading
import time
from pathlib import Path

from bench.application import Application, run_application
from bench.client import LoadClient, read_cpu_seconds
from tests.support.http_session import HttpSession

MISSED_EVENTS = 20  # events published while all were disconnected


def measure(programs: Path, streams: int) -> None:
    """Measure with two workers and `streams` users. Prints rows of the table."""
    (folder := programs / "storm").mkdir()
    with run_application(folder, people_count=streams, workers=2) as app:
        first_load = LoadClient(programs, app.port, streams, app.path, tokens=app.tokens)
        first_load.wait_until_open()
        cursor, workers = app.cursor(), app.system.get_worker_pids()
        cpu_seconds_before = sum(map(read_cpu_seconds, workers))
        time.sleep(15)
        cores = (sum(map(read_cpu_seconds, workers)) - cpu_seconds_before) / 15
        print(f"| {streams:,} idle streams on two workers | {cores:.3f} of a core |")
        first_load.stop()  # every socket closes at once
        app.send(MISSED_EVENTS)
        pages = PageLoader(app)
        returned_load = LoadClient(programs, app.port, streams, f"{app.path}?after={cursor}", tokens=app.tokens)
        seconds = returned_load.wait_until_open()
        median, p95 = pages.stop()
        returned_load.stop()
    print(f"| {streams:,} streams cut off at once, two workers | all current after {seconds:.1f} s, none refused |")
    print(f"| inbox pages meanwhile | median {median * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms |")


class PageLoader:
    """Loads the inbox five times per second."""

    def __init__(self, app: Application):
        self._visitor = HttpSession(app.system, token=app.tokens.read_text().split()[0])
        self._durations: list[float] = []
        self._stop_requested = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop_requested.wait(0.2):
            started_at = time.monotonic()
            assert self._visitor.get("/inbox").status == 200
            self._durations.append(time.monotonic() - started_at)

    def stop(self) -> tuple[float, float]:
        """Stop; return the median and the 95th percentile in seconds."""
        self._stop_requested.set()
        self._thread.join()
        return statistics.median(self._durations), statistics.quantiles(self._durations, n=20)[-1]
