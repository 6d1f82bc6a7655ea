"""E-mail beside streams: `python -m bench.mail [--people 10000] [--streams 1000]`.

One worker on core 0 sends everybody a mail while its streams get an event each second. The ratio compares the time until
the last stream has an event with the time before and after, when no mail is sent.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import func, insert, select

from bench.application import Application, run_application
from bench.client import LoadClient, build
from bench.pages import each_database
from bench.table import HEADER, Row, describe_machine, get_quantile
from bench.ticks import Ticks
from broadcast.domain import clock
from broadcast.store.database import db
from broadcast.store.models import Delivery, EmailAddress, User
from broadcast.store.transactions import write_transaction
from tests.support.escalation import by_channel, set_policy
from tests.support.ports import find_free_port

_QUIET_EVENTS = 40  # before the mails, and after them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=1000)
    options = parser.parse_args()
    print(f"{options.people:,} mails, {options.streams:,} streams; {describe_machine()}\n\n{HEADER}")
    with tempfile.TemporaryDirectory() as name, each_database() as databases:
        programs = build(Path(name))
        for database, url in databases.items():
            _measure(programs, database, url, options)


def _measure(programs: Path, database: str, url: str | None, options: argparse.Namespace) -> None:
    port, ticks = find_free_port(), Ticks(programs / f"ticks-{database}")
    sink = subprocess.Popen(["nice", "-n", "19", sys.executable, "-m", "bench.smtp_sink", str(port)])
    os.sched_setaffinity(sink.pid, {1})
    email = {"EMAIL_URL": f"smtp://127.0.0.1:{port}?starttls=no", "EMAIL_FROM": "broadcast@example.com"}
    folder = programs / f"mail-{database}"
    try:
        with run_application(folder, people_count=options.people, database_url=url, **email, **ticks.settings) as app:
            load = LoadClient(programs, app.live_stream(), options.streams)
            try:
                load.wait_until_open()
                _compare(app, load, database, ticks)
            finally:
                load.stop()
    finally:
        sink.kill()
        sink.wait()


def _compare(app: Application, load: LoadClient, database: str, ticks: Ticks) -> None:
    with app.app.app_context():
        addresses_count = _add_addresses()
    events = _EventClock(app, load)
    quiet = events.measure(_QUIET_EVENTS)
    ticks.clear()
    app.publish(1, priority="URGENT")
    started_at = time.monotonic()
    events.sent_count += 1
    busy = events.measure_until(lambda: _count_sent(app) >= addresses_count)
    seconds, stall = time.monotonic() - started_at, ticks.read_longest_ms()
    quiet += events.measure(_QUIET_EVENTS)
    print(Row(f"{addresses_count:,} mails, {database}", seconds, unit=" s"))
    for words, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        values = [1000 * get_quantile(times, share) for times in (busy, quiet)]
        print(Row(f"an event → last of {load.streams:,} meanwhile: {words}", values[0], "without", values[1], " ms"))
    print(Row("longest stall of the worker's loop", stall, unit=" ms"), flush=True)


class _EventClock:
    """Sends an event each second. `sent_count` counts the messages that the streams have got."""

    def __init__(self, app: Application, load: LoadClient):
        self._app, self._load, self.sent_count = app, load, 0

    def measure(self, count: int) -> list[float]:
        """Seconds from the commit of each event until the last stream had it."""
        return [self._send() for _ in range(count)]

    def measure_until(self, is_done: Callable[[], bool]) -> list[float]:
        seconds = []
        while not is_done():
            seconds.append(self._send())
        return seconds

    def _send(self) -> float:
        started_at = time.monotonic()
        [sent_at] = self._app.send(1)
        self.sent_count += 1
        seconds = self._load.wait_for_message(self.sent_count) - sent_at
        time.sleep(max(0, started_at + 1 - time.monotonic()))
        return seconds


def _add_addresses() -> int:
    set_policy("URGENT", by_channel(0))
    with write_transaction() as session:
        user_ids = session.scalars(select(User.id)).all()
        of_user = {"verified_at": clock.now(), "is_from_provider": False}
        rows = [{"user_id": user_id, "address": f"p{user_id}@example.com"} | of_user for user_id in user_ids]
        session.execute(insert(EmailAddress), rows)
    return len(rows)


def _count_sent(app: Application) -> int:
    with app.app.app_context():
        return db.session.scalar(select(func.count()).select_from(Delivery).where(Delivery.state == "SENT"))


if __name__ == "__main__":
    main()
