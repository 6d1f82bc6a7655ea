"""Ten thousand streams cut off at once, and back: how long until all are current, and what pages cost meanwhile."""

import statistics
import threading
import time
from pathlib import Path

from bench.application import Application, application
from bench.client import Load, cpu_seconds
from tests.visitor import Visitor

MISSED = 20  # events published while everybody was away


def measure(programs: Path, streams: int) -> None:
    """Two workers, `streams` people. Prints rows of the table."""
    (folder := programs / "storm").mkdir()
    with application(folder, people_count=streams, workers=2) as app:
        first = Load(programs, app.port, streams, app.path, tokens=app.tokens)
        first.ready()
        cursor, workers = app.cursor(), app.system.workers()
        used = sum(map(cpu_seconds, workers))
        time.sleep(15)
        print(
            f"| {streams:,} idle streams on two workers | {(sum(map(cpu_seconds, workers)) - used) / 15:.3f} of a core |"
        )
        first.end()  # every socket closes at once
        app.send(MISSED)
        pages = Pages(app)
        back = Load(programs, app.port, streams, f"{app.path}?after={cursor}", tokens=app.tokens)
        seconds = back.ready()
        median, p95 = pages.end()
        back.end()
    print(f"| {streams:,} streams cut off at once, two workers | all current after {seconds:.1f} s, none refused |")
    print(f"| inbox pages meanwhile | median {median * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms |")


class Pages:
    """Somebody who loads the inbox five times a second."""

    def __init__(self, app: Application):
        self._visitor = Visitor(app.system, token=app.tokens.read_text().split()[0])
        self._took: list[float] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.wait(0.2):
            began = time.monotonic()
            assert self._visitor.get("/inbox").status == 200
            self._took.append(time.monotonic() - began)

    def end(self) -> tuple[float, float]:
        """Stop, and return the median and the 95th percentile in seconds."""
        self._ending.set()
        self._thread.join()
        return statistics.median(self._took), statistics.quantiles(self._took, n=20)[-1]
