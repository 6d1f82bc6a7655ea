"""A system to break: two workers, a Redis behind a proxy, a database (PostgreSQL behind a proxy), and users."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import sqlalchemy

from broadcast.launcher.redis_server import find_server
from tests.chaos.kafka_environment import TOPIC, run_kafka
from tests.chaos.scenario import ChaosEnvironment
from tests.e2e.system.test_database_failover import command
from tests.support.databases import DATABASE_URL, temporary_database
from tests.support.servers import PostgresServer, RedisServer, run_primary_and_standby
from tests.support.system import PROJECT_ROOT, System
from tests.support.tcp_proxy import TcpProxy


@contextmanager
def start_environment(folder: Path, *, user_count: int, seed: int, requirement: str = "") -> Iterator[ChaosEnvironment]:
    """Start everything; stop it at the end of the block. Raises LookupError without a Redis server on this machine.

    `requirement` is "standby" for a PostgreSQL primary with a standby, "kafka" for brokers that the system reads.
    """
    if find_server() is None:
        raise LookupError("no Redis or Valkey server on this machine")
    redis, failpoints = RedisServer(folder), folder / "failpoints"
    failpoints.mkdir()
    with ExitStack() as stack:
        stack.callback(redis.stop)
        redis.start()
        redis_proxy = TcpProxy("127.0.0.1", redis.port)
        postgres_pair = stack.enter_context(run_primary_and_standby()) if requirement == "standby" else None
        kafka = stack.enter_context(run_kafka()) if requirement == "kafka" else None
        database_url = (
            _create_database(postgres_pair) if postgres_pair else stack.enter_context(temporary_database(DATABASE_URL))
        )
        database_proxy, proxied_url = (None, database_url) if postgres_pair else _proxy_database(database_url)
        settings = {"PYTHONPATH": str(PROJECT_ROOT / "tests/support/failpoints"), "FAILPOINTS": str(failpoints)}
        settings |= {"STREAMS_PER_ADDRESS": "20000"}
        if kafka:
            settings |= {"KAFKA_BOOTSTRAP_SERVERS": kafka.brokers.address, "KAFKA_TOPICS": TOPIC}
        system = System(folder, database_url=proxied_url, redis_url=f"redis://127.0.0.1:{redis_proxy.port}", **settings)
        stack.enter_context(system)
        seeded_users = json.loads(system.run_module("tests.chaos.seed_users", str(user_count), str(seed)))
        roles, tokens = {who: of for who, of, _ in seeded_users}, {who: token for who, _, token in seeded_users}
        admin_token = system.get_token("alice", "admin")
        yield ChaosEnvironment(
            system,
            redis,
            redis_proxy,
            database_proxy,
            database_url,
            failpoints,
            roles,
            tokens,
            admin_token,
            postgres_pair=postgres_pair,
            kafka=kafka,
        )


def _create_database(postgres_pair: tuple[PostgresServer, PostgresServer]) -> str:
    """Create a database on the server that accepts writes; return its URL."""
    primary, standby = postgres_pair
    command(primary, "CREATE DATABASE broadcast")
    return f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/broadcast"


def _proxy_database(database_url: str | None) -> tuple[TcpProxy | None, str | None]:
    """Return a proxy and the database URL through it; (None, None) for SQLite."""
    if database_url is None:
        return None, None
    url = sqlalchemy.make_url(database_url)
    proxy = TcpProxy(url.host or "127.0.0.1", url.port or 5432)
    return proxy, url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
