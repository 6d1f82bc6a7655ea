"""A minute of faults drawn by chance, one on top of the other, as trouble comes in life.

What everything rests on is unwell for a while: Redis is killed, frozen, cut off or emptied, the database locked or away. Then
it is well for a while. Through all of it workers are killed (some at a failpoint), told to start anew, streams are cut, roles
change, one message is posted many times at once; and when nothing else is wrong, now and then everything is killed.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from redis import Redis

from tests.chaos.faults import AT_POINTS, all_killed, locked, parallel_posts
from tests.chaos.world import World
from tests.processes import wait_for_workers

SECONDS = 60.0
_TROUBLE_SECONDS = (1.0, 8.0)
_WELL_SECONDS = (0.0, 4.0)
_BETWEEN_ACTS_SECONDS = (1.0, 5.0)


def minute(world: World, scale: float) -> None:
    """Break one thing after the other; return when all is healed. `scale` 1 is a minute."""
    until, happened = time.monotonic() + SECONDS * scale, Counter()
    try:
        while (left := until - time.monotonic()) > 0:
            trouble = world.choose.choice(_TROUBLES)
            happened[_said(trouble)] += 1
            with world.readiness.may_name("redis", "database"), trouble(world):
                _act(world, min(left, world.choose.uniform(*_TROUBLE_SECONDS)), happened, _acts_during(trouble))
            _act(world, world.choose.uniform(*_WELL_SECONDS), happened, _ACTS | _WHEN_ALL_IS_WELL)
    finally:
        world.figures |= happened
        for point in AT_POINTS:
            (world.place.failpoints / point).unlink(missing_ok=True)
    wait_for_workers(world.system)


def _act(world: World, seconds: float, happened: Counter[str], acts: dict["Act", int]) -> None:
    """Do one of `acts` (with their weights) every few seconds, for that long."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        pause = world.choose.uniform(*_BETWEEN_ACTS_SECONDS)
        time.sleep(min(left, pause))
        if pause < left:
            [act] = world.choose.choices(list(acts), list(acts.values()))
            happened[_said(act)] += 1
            act(world)


def _said(function: Callable) -> str:
    return function.__name__.strip("_").replace("_", " ")


# ---- what everything rests on

Trouble = Callable[[World], AbstractContextManager]


def _all_is_well(world: World) -> AbstractContextManager:
    return nullcontext()


@contextmanager
def _redis_killed(world: World) -> Iterator[None]:
    world.place.redis.signal(signal.SIGKILL)
    try:
        yield
    finally:
        world.place.redis.start()


@contextmanager
def _redis_frozen(world: World) -> Iterator[None]:
    world.place.redis.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        world.place.redis.signal(signal.SIGCONT)


@contextmanager
def _redis_silent_then_cut(world: World) -> Iterator[None]:
    world.place.redis_link.hold()
    try:
        yield
    finally:
        world.place.redis_link.cut()
        world.place.redis_link.release()


@contextmanager
def _redis_emptied_and_full(world: World) -> Iterator[None]:
    with Redis.from_url(world.place.redis.url) as redis:
        redis.flushall()
        redis.config_set("maxmemory", 1)
        try:
            yield
        finally:
            redis.config_set("maxmemory", 0)


def _database_locked(world: World) -> AbstractContextManager:
    return locked(world)


def _database_away(world: World) -> AbstractContextManager:
    """SQLite is a file and goes nowhere; there it is locked."""
    return locked(world) if world.place.is_sqlite else world.place.database_link.closed()


_OF_THE_DATABASE = (_database_locked, _database_away)
_TROUBLES: tuple[Trouble, ...] = (
    _all_is_well, _redis_killed, _redis_frozen, _redis_silent_then_cut, _redis_emptied_and_full, *_OF_THE_DATABASE,
)  # fmt: skip


# ---- what happens meanwhile

Act = Callable[[World], None]


def _worker_killed(world: World) -> None:
    with suppress(ProcessLookupError, IndexError):  # the others may have left no worker
        os.kill(world.choose.choice(world.system.workers()), signal.SIGKILL)


def _failpoint_armed(world: World) -> None:
    (world.place.failpoints / world.choose.choice(AT_POINTS)).touch()


def _hang_up(world: World) -> None:
    os.kill(world.system.master, signal.SIGHUP)


def _streams_cut(world: World) -> None:
    for page in world.choose.sample(world.pages, len(world.pages) // 4):
        page.cut()


def _one_posted_by_many(world: World) -> None:
    parallel_posts(world, 0)


def _roles_changed(world: World) -> None:
    user = world.choose.choice(sorted(world.roles))
    world.set_roles(user, sorted(world.choose.sample(["ops", "sales", "night"], world.choose.randrange(4))))


def _everything_killed(world: World) -> None:
    all_killed(world, 0)


_ACTS: dict[Act, int] = {_worker_killed: 4, _failpoint_armed: 3, _hang_up: 1, _streams_cut: 4, _one_posted_by_many: 2}
_WHEN_THE_DATABASE_IS_WELL: dict[Act, int] = {_roles_changed: 3}  # it is an operator's command, and must succeed
_WHEN_ALL_IS_WELL: dict[Act, int] = {**_WHEN_THE_DATABASE_IS_WELL, _everything_killed: 1}


def _acts_during(trouble: Trouble) -> dict[Act, int]:
    if trouble is _all_is_well:
        return _ACTS | _WHEN_ALL_IS_WELL
    return _ACTS if trouble in _OF_THE_DATABASE else _ACTS | _WHEN_THE_DATABASE_IS_WELL
