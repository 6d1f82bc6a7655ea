"""Faults of a PostgreSQL with a standby: the primary becomes read-only, or it dies and commits are lost."""

import time

from tests.chaos.faults import register_fault
from tests.chaos.lost_commits import find_lost_keys, find_streams_without_reset
from tests.chaos.scenario import Scenario
from tests.e2e.system.test_database_failover import command, engine_of
from tests.support.servers import PostgresServer
from tests.support.system import wait_for


@register_fault("F30", "PostgreSQL: primary read-only, then its standby promoted", requirement="standby")
def make_primary_read_only(scenario: Scenario, scale: float) -> None:
    """A demotion without a restart: the server answers, its connections stay open, and it accepts no writes."""
    primary, standby = scenario.environment.postgres_pair
    with scenario.readiness.must_report("database") as problem:
        command(primary, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        scenario.readiness.wait_until_reported(problem)
        time.sleep(10 * scale)
        wal_position = _query_value(primary, "SELECT pg_current_wal_lsn()")
        wait_for(
            lambda: _query_value(standby, f"SELECT pg_last_wal_replay_lsn() >= '{wal_position}'::pg_lsn"),
            seconds=20, description="the standby to have all that was committed",
        )  # fmt: skip
        problem.ended_at = time.monotonic()
        standby.promote()
    _wait_until_writable(scenario)


@register_fault("F31", "PostgreSQL: primary dies, its standby lacks the last commits", requirement="standby")
def lose_commits(scenario: Scenario, scale: float) -> None:
    """The commits of the last seconds are lost, and their seqs are reused: every page gets a RESET."""
    primary, standby = scenario.environment.postgres_pair
    started_at = time.monotonic() - 1  # the standby may have lagged already
    standby.stop()
    time.sleep(1 + 5 * scale)
    with scenario.readiness.must_report("database") as problem:
        primary.stop()
        scenario.readiness.wait_until_reported(problem)
        standby.start()
        epoch, seq = _query_row(standby, "SELECT epoch, seq FROM log_head")
        newest = _query_value(standby, "SELECT coalesce(max(id), 0) FROM broadcasts")
        problem.ended_at = time.monotonic()
        standby.promote()
    loss = {"began": started_at, "ended": time.monotonic(), "epoch": epoch, "seq": seq, "broadcast": newest}
    scenario.history.record_event("history_lost", **loss)
    _wait_until_writable(scenario)
    wait_for(
        lambda: not find_streams_without_reset(list(scenario.history.events)),
        seconds=20,
        description="RESET on every page that was open",
    )
    existing = {title for _, _, title in scenario.list_broadcasts()}
    scenario.measurements["commits lost"] = len(find_lost_keys(list(scenario.history.events), existing))


def _wait_until_writable(scenario: Scenario) -> None:
    started_at = time.monotonic()
    wait_for(
        lambda: scenario.publish({"kind": "everyone"}, max_tries=1),
        seconds=30,
        description="the new primary to be found",
    )
    scenario.measurements["writes again after s"] = round(time.monotonic() - started_at, 1)


def _query_value(server: PostgresServer, sql: str) -> object:
    return _query_row(server, sql)[0]


def _query_row(server: PostgresServer, sql: str) -> tuple:
    with engine_of(server, "broadcast").connect() as connection:
        return tuple(connection.exec_driver_sql(sql).one())
