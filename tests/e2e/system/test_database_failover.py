"""A real primary and its standby: the system finds the new primary itself, and never hides that commits were lost."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import sqlalchemy

from tests.support.process_fixtures import StreamOpener, streams  # noqa: F401 - a fixture
from tests.support.servers import PostgresServer, run_primary_and_standby
from tests.support.system import System, open_connection, wait_for

pytestmark = [pytest.mark.service, pytest.mark.alike]


class Pair(NamedTuple):
    system: System
    primary: PostgresServer
    standby: PostgresServer


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with run_primary_and_standby() as (primary, standby):
        command(primary, "CREATE DATABASE broadcast")
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        with System(tmp_path, database_url=f"postgresql://postgres@{hosts}/broadcast") as system:
            yield Pair(system, primary, standby)


def engine_of(server: PostgresServer, name: str = "postgres") -> sqlalchemy.Engine:
    url = f"postgresql+psycopg://postgres@127.0.0.1:{server.port}/{name}"
    return sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)


def command(server: PostgresServer, *statements: str) -> None:
    with engine_of(server).connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def head(server: PostgresServer) -> int:
    with engine_of(server, "broadcast").connect() as connection:
        return connection.exec_driver_sql("SELECT seq FROM log_head").scalar_one()


def wait_until_the_same(pair: Pair) -> None:
    """The standby has all that was committed."""
    wait_for(lambda: head(pair.primary) == head(pair.standby), seconds=20, description="the standby to follow")


def ready(system: System) -> dict:
    """What a probe is told: it asks without a token, which would be looked up in the database."""
    connection = open_connection(system.url, timeout=20)
    try:
        connection.request("GET", "/readyz")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def publish(system: System, title: str) -> int | None:
    """The id, or None when it was refused for the moment."""
    message = {"title": title, "content": "Text", "targetType": "ALL"}
    status, told = system.call("POST", "/api/admin/broadcasts", token=system.get_token("alice", "admin"), body=message)
    assert status in (201, 503, 504), told
    return told["id"] if status == 201 else None


def test_primary_that_became_read_only_is_503_and_left_for_the_new_one(pair: Pair, streams: StreamOpener):  # noqa: F811
    """A demotion without a restart: the old server answers, its connections live, and it takes no writes."""
    system = pair.system
    listener = streams.open(system, "bob")
    listener.wait_for_message(publish(system, "Before"))
    wait_until_the_same(pair)
    command(pair.primary, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    wait_for(lambda: publish(system, "To nobody") is None, description="a refusal")
    wait_for(lambda: "database" in ready(system)["failing"], description="/readyz to say so")
    pair.standby.promote()
    sent = wait_for(lambda: publish(system, "After"), seconds=30, description="the new primary to be found")
    listener.wait_for_message(sent, seconds=20)
    wait_for(lambda: not ready(system)["failing"], seconds=20, description="/readyz to be well again")


def test_lost_commits_are_told_to_everybody_though_their_numbers_are_given_out_again(pair: Pair, streams: StreamOpener):  # noqa: F811
    """The standby had not got the last two."""
    system = pair.system
    before = publish(system, "Before")
    listener, stays = streams.open(system, "bob"), streams.open(system, "charlie")
    wait_until_the_same(pair)
    pair.standby.stop()
    lost = [publish(system, f"Lost {n}") for n in range(2)]
    old = listener.wait_for_message(lost[-1]).id
    stays.wait_for_message(lost[-1])
    listener.close()
    pair.primary.stop()
    pair.standby.start()
    pair.standby.promote()
    sent = [
        wait_for(lambda n=n: publish(system, f"After {n}"), seconds=30, description="the new primary") for n in range(3)
    ]
    stays.wait_for("RESET", seconds=20)
    assert streams.resume(system, "bob", old).wait_for("RESET", seconds=20)
    status, listed = system.call("GET", "/api/user/messages", token=system.get_token("bob"))
    assert status == 200
    assert [item["id"] for item in listed["items"]] == [*reversed(sent), before]
    assert epochs_begun(pair.standby) == 1


def epochs_begun(server: PostgresServer) -> int:
    with engine_of(server, "broadcast").connect() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM audit WHERE action = 'log.epoch'").scalar_one()
