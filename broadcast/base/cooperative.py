"""Yielding to other greenlets for two microseconds, for work that must not block the worker's event loop.

`gevent.sleep(0)` runs no timers, and the shortest real sleep takes a millisecond (the resolution of libev's epoll),
which would cost a tenth of a fan-out. Work on SQLite needs explicit yields most: it never waits, so it never switches.
"""

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

import gevent

_IDLE_PRIORITY, _LAST_PRIORITY = -2, -1  # libev priorities; the default is 0
_MAX_WORK_SECONDS = 0.004
T = TypeVar("T")


def yield_to_loop() -> None:
    """Run one turn of the event loop: everything that is ready and every due timer runs before this returns."""
    hub = gevent.get_hub()
    idle_watcher, check_watcher = hub.loop.idle(priority=_IDLE_PRIORITY), hub.loop.check(priority=_LAST_PRIORITY)
    idle_watcher.start(_do_nothing)  # an idle watcher keeps the loop from blocking
    try:
        hub.wait(check_watcher)
    finally:
        check_watcher.close()
        idle_watcher.stop()
        idle_watcher.close()


def _do_nothing() -> None:
    pass


class Yielder:
    """Yields to other greenlets after every few milliseconds of work, at points that the caller chooses."""

    def __init__(self) -> None:
        self._last_yield_at = time.monotonic()

    def maybe_yield(self) -> None:
        """Let other greenlets run if the last yield was long ago. Not for code that must not be interleaved."""
        if time.monotonic() - self._last_yield_at > _MAX_WORK_SECONDS:
            yield_to_loop()
            self._last_yield_at = time.monotonic()


def split_into_chunks(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Slices of at most `size` values, in order. Lets other greenlets run between them."""
    yielder = Yielder()
    for start in range(0, len(values), size):
        yield values[start : start + size]
        yielder.maybe_yield()
