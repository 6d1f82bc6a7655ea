"""A system to break: two workers, a Redis of its own behind a link, a database (PostgreSQL behind a link), and people."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import sqlalchemy

from broadcast.launcher.redis_server import find_server
from tests.chaos.kafka import TOPIC, a_kafka
from tests.chaos.servers import Link, RedisServer
from tests.chaos.world import Place
from tests.databases import DATABASE_URL, database_of_its_own
from tests.servers import Postgres, primary_and_standby
from tests.service.test_fail_over import command
from tests.system import TOP, System


@contextmanager
def a_place(folder: Path, *, people: int, seed: int, needs: str = "") -> Iterator[Place]:
    """Everything started, and ended at the end. Raises LookupError without a Redis server on this machine.

    `needs` is "standby" for a PostgreSQL primary that has one, "kafka" for brokers that the system reads.
    """
    program = find_server()
    if program is None:
        raise LookupError("no Redis or Valkey server on this machine")
    redis, failpoints = RedisServer(str(program), folder), folder / "failpoints"
    failpoints.mkdir()
    with ExitStack() as stack:
        stack.callback(_end, redis)
        redis.start()
        redis_link = Link("127.0.0.1", redis.port)
        pair = stack.enter_context(primary_and_standby()) if needs == "standby" else None
        kafka = stack.enter_context(a_kafka()) if needs == "kafka" else None
        database = _of_both(pair) if pair else stack.enter_context(database_of_its_own(DATABASE_URL))
        database_link, linked = (None, database) if pair else _linked(database)
        settings = {"PYTHONPATH": str(TOP / "tests/failpoints"), "FAILPOINTS": str(failpoints)}
        if kafka:
            settings |= {"KAFKA_BOOTSTRAP_SERVERS": kafka.brokers.address, "KAFKA_TOPICS": TOPIC}
        system = System(folder, database_url=linked, redis_url=f"redis://127.0.0.1:{redis_link.port}", **settings)
        stack.enter_context(system)
        made = json.loads(system.run_module("tests.chaos.populate", str(people), str(seed)))
        roles, tokens = {who: of for who, of, _ in made}, {who: token for who, _, token in made}
        admin = system.token("alice", "admin")
        yield Place(
            system, redis, redis_link, database_link, database, failpoints, roles, tokens, admin, pair=pair, kafka=kafka
        )


def _end(redis: RedisServer) -> None:
    redis.signal(signal.SIGCONT)
    redis.signal(signal.SIGKILL)


def _of_both(pair: tuple[Postgres, Postgres]) -> str:
    """A new database, at whichever of the two takes writes."""
    primary, standby = pair
    command(primary, "CREATE DATABASE broadcast")
    return f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/broadcast"


def _linked(database: str | None) -> tuple[Link | None, str | None]:
    """The same database through a link that can be closed; (None, None) for SQLite."""
    if database is None:
        return None, None
    url = sqlalchemy.make_url(database)
    link = Link(url.host or "127.0.0.1", url.port or 5432)
    return link, url.set(host="127.0.0.1", port=link.port).render_as_string(hide_password=False)
