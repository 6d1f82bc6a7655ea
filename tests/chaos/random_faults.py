"""A minute of random, overlapping faults, as in a real outage.

For a while a dependency is broken: Redis is killed, frozen, disconnected or flushed, the database locked or
unreachable. Then both are healthy for a while. All the time workers are killed (some at a failpoint) and reloaded,
streams are disconnected, roles change, and one message is posted many times at once; while the dependencies are
healthy, sometimes everything is killed.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from redis import Redis

from tests.chaos.faults import WORKER_FAILPOINTS, kill_everything, lock_database, post_in_parallel
from tests.chaos.scenario import Scenario
from tests.support.process_fixtures import wait_for_workers

RUN_SECONDS = 60.0
_OUTAGE_SECONDS = (1.0, 8.0)
_HEALTHY_SECONDS = (0.0, 4.0)
_ACTION_INTERVAL_SECONDS = (1.0, 5.0)


def run_random_faults(scenario: Scenario, scale: float) -> None:
    """Break one thing after another; return when everything is healed. `scale` 1 is a minute."""
    deadline, counts = time.monotonic() + RUN_SECONDS * scale, Counter()
    try:
        while (remaining_seconds := deadline - time.monotonic()) > 0:
            outage = scenario.rng.choice(_OUTAGES)
            counts[_describe(outage)] += 1
            with scenario.readiness.may_report("redis", "database"), outage(scenario):
                _run_actions(
                    scenario,
                    min(remaining_seconds, scenario.rng.uniform(*_OUTAGE_SECONDS)),
                    counts,
                    _get_actions_during(outage),
                )
            _run_actions(scenario, scenario.rng.uniform(*_HEALTHY_SECONDS), counts, _ACTIONS | _HEALTHY_ACTIONS)
    finally:
        scenario.measurements |= counts
        for failpoint in WORKER_FAILPOINTS:
            (scenario.environment.failpoints_dir / failpoint).unlink(missing_ok=True)
    wait_for_workers(scenario.system)


def _run_actions(scenario: Scenario, seconds: float, counts: Counter[str], action_weights: dict["Action", int]) -> None:
    """For that many seconds, run one of the weighted actions every few seconds."""
    deadline = time.monotonic() + seconds
    while (remaining_seconds := deadline - time.monotonic()) > 0:
        pause_seconds = scenario.rng.uniform(*_ACTION_INTERVAL_SECONDS)
        time.sleep(min(remaining_seconds, pause_seconds))
        if pause_seconds < remaining_seconds:
            [action] = scenario.rng.choices(list(action_weights), list(action_weights.values()))
            counts[_describe(action)] += 1
            action(scenario)


def _describe(function: Callable) -> str:
    return function.__name__.strip("_").replace("_", " ")


# ---- dependencies

Outage = Callable[[Scenario], AbstractContextManager]


def _no_outage(scenario: Scenario) -> AbstractContextManager:
    return nullcontext()


@contextmanager
def _kill_redis(scenario: Scenario) -> Iterator[None]:
    scenario.environment.redis.send_signal(signal.SIGKILL)
    try:
        yield
    finally:
        scenario.environment.redis.start()


@contextmanager
def _freeze_redis(scenario: Scenario) -> Iterator[None]:
    scenario.environment.redis.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        scenario.environment.redis.send_signal(signal.SIGCONT)


@contextmanager
def _pause_then_cut_redis(scenario: Scenario) -> Iterator[None]:
    scenario.environment.redis_proxy.pause()
    try:
        yield
    finally:
        scenario.environment.redis_proxy.disconnect()
        scenario.environment.redis_proxy.resume()


@contextmanager
def _empty_and_fill_redis(scenario: Scenario) -> Iterator[None]:
    with Redis.from_url(scenario.environment.redis.url) as redis:
        redis.flushall()
        redis.config_set("maxmemory", 1)
        try:
            yield
        finally:
            redis.config_set("maxmemory", 0)


def _lock_database(scenario: Scenario) -> AbstractContextManager:
    return lock_database(scenario)


def _disconnect_database(scenario: Scenario) -> AbstractContextManager:
    """Make PostgreSQL unreachable. SQLite is a file, which is locked instead."""
    return (
        lock_database(scenario)
        if scenario.environment.is_sqlite
        else scenario.environment.database_proxy.refuse_connections()
    )


_DATABASE_OUTAGES = (_lock_database, _disconnect_database)
_OUTAGES: tuple[Outage, ...] = (
    _no_outage, _kill_redis, _freeze_redis, _pause_then_cut_redis, _empty_and_fill_redis, *_DATABASE_OUTAGES,
)  # fmt: skip


# ---- actions

Action = Callable[[Scenario], None]


def _kill_worker(scenario: Scenario) -> None:
    with suppress(ProcessLookupError, IndexError):  # earlier actions may have left no worker
        os.kill(scenario.rng.choice(scenario.system.get_worker_pids()), signal.SIGKILL)


def _arm_failpoint(scenario: Scenario) -> None:
    (scenario.environment.failpoints_dir / scenario.rng.choice(WORKER_FAILPOINTS)).touch()


def _reload_workers(scenario: Scenario) -> None:
    os.kill(scenario.system.master_pid, signal.SIGHUP)


def _disconnect_streams(scenario: Scenario) -> None:
    for page in scenario.rng.sample(scenario.pages, len(scenario.pages) // 4):
        page.disconnect()


def _post_in_parallel(scenario: Scenario) -> None:
    post_in_parallel(scenario, 0)


def _change_roles(scenario: Scenario) -> None:
    user = scenario.rng.choice(sorted(scenario.roles_by_user))
    scenario.set_roles(user, sorted(scenario.rng.sample(["ops", "sales", "night"], scenario.rng.randrange(4))))


def _kill_everything(scenario: Scenario) -> None:
    kill_everything(scenario, 0)


_ACTIONS: dict[Action, int] = {
    _kill_worker: 4,
    _arm_failpoint: 3,
    _reload_workers: 1,
    _disconnect_streams: 4,
    _post_in_parallel: 2,
}
_DATABASE_ACTIONS: dict[Action, int] = {_change_roles: 3}  # it is an operator's command, which must succeed
_HEALTHY_ACTIONS: dict[Action, int] = {**_DATABASE_ACTIONS, _kill_everything: 1}


def _get_actions_during(outage: Outage) -> dict[Action, int]:
    if outage is _no_outage:
        return _ACTIONS | _HEALTHY_ACTIONS
    return _ACTIONS if outage in _DATABASE_OUTAGES else _ACTIONS | _DATABASE_ACTIONS
