"""Publishes per second of one PostgreSQL: `python -m bench.publishes`. A commit waits for the disk.

Runs the real action, one transaction per publish, in 1, 4 and 8 processes; then appends events in batches of 500.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from broadcast.actions import broadcasts
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.audience import EveryoneAudience
from broadcast.domain.events import EventType
from broadcast.domain.message import parse_draft
from broadcast.factory import create_app
from broadcast.store import log, users
from broadcast.store.transactions import write_transaction
from tests.support.databases import temporary_database
from tests.support.servers import run_postgres
from tests.support.system import System

PROCESS_COUNTS = (1, 4, 8)
BATCH_EVENTS, RUN_SECONDS = 500, 5.0


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        run_postgres(durable=True) as server,
        temporary_database(server) as database,
        System(Path(folder), database_url=database) as system,
    ):
        environ = system.environ | {"REDIS_URL": system.redis_url, "LOG_LEVEL": "error"}
        for clients in PROCESS_COUNTS:
            print(
                f"{clients} processes: {_measure_rate(clients, measure_publishes, environ):,} publishes/s", flush=True
            )
        print(f"4 processes, batches of {BATCH_EVENTS}: {_measure_rate(4, measure_appends, environ):,} events/s")


def measure_publishes(environ: dict[str, str]) -> int:
    """Publish for SECONDS; return the number of publishes."""
    with create_app(Settings.load(environ)).app_context():
        sender = users.get_first_admin()
        actor = Actor(sender.id, sender.name, sender.roles, True)
        fields = {"title": "Measured", "content": "Text of it", "targetType": "ALL"}
        return _count_runs(lambda: broadcasts.publish(parse_draft(fields, now=clock.now()), by=actor, now=clock.now()))


def measure_appends(environ: dict[str, str]) -> int:
    """Append batches for SECONDS; return the number of events."""
    entry = log.NewEvent(EventType.SESSION_ENDED, None, EveryoneAudience(), {"session": "measured"})

    def append_batch() -> None:
        with write_transaction() as session:
            log.append(session, [entry] * BATCH_EVENTS, at=clock.now())

    with create_app(Settings.load(environ)).app_context():
        return BATCH_EVENTS * _count_runs(append_batch)


def _measure_rate(process_count: int, work: Callable[[dict[str, str]], int], environ: dict[str, str]) -> int:
    with multiprocessing.get_context("spawn").Pool(process_count) as pool:
        return round(sum(pool.map(work, [environ] * process_count, chunksize=1)) / RUN_SECONDS)


def _count_runs(action: Callable[[], object]) -> int:
    deadline, count = time.monotonic() + RUN_SECONDS, 0
    while time.monotonic() < deadline:
        action()
        count += 1
    return count


if __name__ == "__main__":
    main()
