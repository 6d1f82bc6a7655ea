"""How many publishes a second one PostgreSQL takes: `python -m bench.publishes`. A commit waits for the disk.

The real action, each publish its own transaction, by 1, 4 and 8 processes at once; then events appended in batches of 500.
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
from broadcast.domain.audience import Everyone
from broadcast.domain.events import EventType
from broadcast.domain.message import read_draft
from broadcast.factory import create_app
from broadcast.store import log, users
from broadcast.store.database import writing
from tests.databases import database_of_its_own
from tests.servers import postgres
from tests.system import System

CLIENTS = (1, 4, 8)
BATCH, SECONDS = 500, 5.0


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        postgres(durable=True) as server,
        database_of_its_own(server) as database,
        System(Path(folder), database_url=database) as system,
    ):
        given = system.environ | {"REDIS_URL": system.redis_url, "LOG_LEVEL": "error"}
        for clients in CLIENTS:
            print(f"{clients} processes: {_together(clients, publish, given):,} publishes/s", flush=True)
        print(f"4 processes, batches of {BATCH}: {_together(4, append, given):,} events/s")


def publish(given: dict[str, str]) -> int:
    """Publish for SECONDS; return how many."""
    with create_app(Settings.load(given)).app_context():
        sender = users.first_admin()
        by = Actor(sender.id, sender.name, sender.roles, True)
        raw = {"title": "Measured", "content": "Text of it", "targetType": "ALL"}
        return _for_seconds(lambda: broadcasts.publish(read_draft(raw, now=clock.now()), by=by, now=clock.now()))


def append(given: dict[str, str]) -> int:
    """Append batches for SECONDS; return how many events."""
    entry = log.Entry(EventType.SESSION_ENDED, None, Everyone(), {"session": "measured"})

    def once() -> None:
        with writing() as session:
            log.append(session, [entry] * BATCH, at=clock.now())

    with create_app(Settings.load(given)).app_context():
        return BATCH * _for_seconds(once)


def _together(clients: int, work: Callable[[dict[str, str]], int], given: dict[str, str]) -> int:
    with multiprocessing.get_context("spawn").Pool(clients) as pool:
        return round(sum(pool.map(work, [given] * clients, chunksize=1)) / SECONDS)


def _for_seconds(act: Callable[[], object]) -> int:
    until, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        act()
        count += 1
    return count


if __name__ == "__main__":
    main()
