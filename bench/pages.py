"""What a page costs beside `/healthz`, and how fast streams open: `python -m bench.pages`.

Each request comes from another user, round robin; the pages take turns with `/healthz`, so that noise of the machine
meets all alike. A worker's processor time for a request is its own; a duration includes this client's.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from bench.application import Application, run_application
from bench.client import LoadClient, build, read_cpu_seconds
from broadcast.actions import broadcasts
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.message import parse_draft
from tests.support.http_session import HttpSession

PATHS = ("/healthz", "/inbox", "/api/user/messages")
ROUNDS, REQUESTS_PER_TURN = 20, 10
WARM_UP_ROUNDS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--live", type=int, nargs="*", default=[0, 20, 200])
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    print("| live messages | path | p50 | p95 | processor time | : /healthz |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        programs = build(Path(name))
        for live in options.live:
            (folder := programs / f"live-{live}").mkdir()
            with run_application(folder, people_count=max(options.users, options.streams)) as app:
                publish(app, live)
                measure_pages(app, live, options.users)
                measure_opening(programs, app, live, options.streams)


def publish(app: Application, count: int) -> None:
    actor = Actor(1, "Bench", frozenset(), True)
    with app.app.app_context():
        for number in range(count):
            fields = {"title": f"Message {number}", "content": "The lifts **stand** still.\n\n* one\n* two"}
            draft = parse_draft(fields | {"targetType": "ALL", "category": f"C{number % 3}"}, now=clock.now())
            broadcasts.publish(draft, by=actor, now=clock.now())


def measure_pages(app: Application, live: int, users: int) -> None:
    sessions = [HttpSession(app.system, token=token) for token in app.tokens.read_text().split()[:users]]
    [worker] = app.system.get_worker_pids()
    durations: dict[str, list[float]] = {path: [] for path in PATHS}
    cpu_seconds = dict.fromkeys(PATHS, 0.0)
    turn = 0
    for number in range(WARM_UP_ROUNDS + ROUNDS):
        for path in PATHS:
            cpu_seconds_before = read_cpu_seconds(worker)
            for _ in range(REQUESTS_PER_TURN):
                session, turn = sessions[turn % users], turn + 1
                started_at = time.perf_counter()
                assert session.get(path).status == 200
                if number >= WARM_UP_ROUNDS:
                    durations[path].append(time.perf_counter() - started_at)
            if number >= WARM_UP_ROUNDS:
                cpu_seconds[path] += read_cpu_seconds(worker) - cpu_seconds_before
    base = statistics.median(durations["/healthz"])
    for path in PATHS:
        median, p95 = statistics.median(durations[path]), statistics.quantiles(durations[path], n=20)[-1]
        cpu_ms = 1000 * cpu_seconds[path] / (ROUNDS * REQUESTS_PER_TURN)
        print(
            f"| {live} | {path} | {1000 * median:.1f} ms | {1000 * p95:.1f} ms | {cpu_ms:.1f} ms | {median / base:.1f} |"
        )


def measure_opening(programs: Path, app: Application, live: int, streams: int) -> None:
    """Print how many streams open in a second: with a cursor at the head, and without one."""
    for words, path in (("without a cursor", app.path), ("with a cursor", f"{app.path}?after={app.cursor()}")):
        load = LoadClient(programs, app.port, streams, path, tokens=app.tokens)
        print(f"| {live} | {streams:,} streams {words} | {streams / load.wait_until_open():,.0f}/s | | | |")
        load.stop()
        time.sleep(2)  # until the worker has noticed


if __name__ == "__main__":
    main()
