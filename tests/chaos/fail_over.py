"""Faults of a PostgreSQL that has a standby: the primary becomes read-only, or it dies and takes commits with it."""

import time

from tests.chaos.faults import fault
from tests.chaos.lost import lost_keys, not_told
from tests.chaos.world import World
from tests.servers import Postgres
from tests.service.test_fail_over import command, engine_of
from tests.system import wait_for


@fault("F30", "PostgreSQL: primary read-only, then its standby promoted", needs="standby")
def primary_read_only(world: World, scale: float) -> None:
    """A demotion without a restart: the server answers, its connections live, and it takes no writes."""
    primary, standby = world.place.pair
    with world.readiness.names("database") as trouble:
        command(primary, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        world.readiness.wait_until_named(trouble)
        time.sleep(10 * scale)
        written = _ask(primary, "SELECT pg_current_wal_lsn()")
        wait_for(
            lambda: _ask(standby, f"SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn"),
            seconds=20, what="the standby to have all that was committed",
        )  # fmt: skip
        trouble.until = time.monotonic()
        standby.promote()
    _wait_until_it_writes(world)


@fault("F31", "PostgreSQL: primary dies, its standby lacks the last commits", needs="standby")
def commits_lost(world: World, scale: float) -> None:
    """What was answered in the last seconds is gone, and its numbers are given out again: every page is told by RESET."""
    primary, standby = world.place.pair
    began = time.monotonic() - 1  # the standby may have been behind already
    standby.stop()
    time.sleep(1 + 5 * scale)
    with world.readiness.names("database") as trouble:
        primary.stop()
        world.readiness.wait_until_named(trouble)
        standby.start()
        epoch, seq = _ask_row(standby, "SELECT epoch, seq FROM log_head")
        newest = _ask(standby, "SELECT coalesce(max(id), 0) FROM broadcasts")
        trouble.until = time.monotonic()
        standby.promote()
    lost = {"began": began, "ended": time.monotonic(), "epoch": epoch, "seq": seq, "broadcast": newest}
    world.history.note("history_lost", **lost)
    _wait_until_it_writes(world)
    wait_for(lambda: not not_told(list(world.history.events)), seconds=20, what="RESET on every page that was open")
    existing = {title for _, _, title in world.rows()}
    world.figures["commits lost"] = len(lost_keys(list(world.history.events), existing))


def _wait_until_it_writes(world: World) -> None:
    began = time.monotonic()
    wait_for(lambda: world.publish({"kind": "everyone"}, tries=1), seconds=30, what="the new primary to be found")
    world.figures["writes again after s"] = round(time.monotonic() - began, 1)


def _ask(server: Postgres, question: str) -> object:
    return _ask_row(server, question)[0]


def _ask_row(server: Postgres, question: str) -> tuple:
    with engine_of(server, "broadcast").connect() as connection:
        return tuple(connection.exec_driver_sql(question).one())
