"""A pause that costs two microseconds, for work that must not keep the other greenlets of the worker waiting.

`gevent.sleep(0)` lets no timer run, and the shortest real sleep takes a millisecond, the resolution of libev's epoll: a tenth
of a fan-out would be spent asleep. Work on SQLite needs such pauses above all: it never waits, so nothing else gives one.
"""

import time

import gevent

_IDLE_PRIORITY, _LAST_PRIORITY = -2, -1  # priorities of libev; 0 is everybody's
_MAX_WORK_SECONDS = 0.004


def yield_to_loop() -> None:
    """Return after one turn of the event loop, in which all that was ready, and every timer that was due, has run."""
    hub = gevent.get_hub()
    idle_watcher, check_watcher = hub.loop.idle(priority=_IDLE_PRIORITY), hub.loop.check(priority=_LAST_PRIORITY)
    idle_watcher.start(_do_nothing)  # an idle watcher keeps the loop from waiting for something to happen
    try:
        hub.wait(check_watcher)
    finally:
        check_watcher.close()
        idle_watcher.stop()
        idle_watcher.close()


def _do_nothing() -> None:
    pass


class Yielder:
    """Gives other greenlets a turn after every few milliseconds of work, wherever the work says that it can."""

    def __init__(self) -> None:
        self._last_yield_at = time.monotonic()

    def maybe_yield(self) -> None:
        """Let others run if the work since the last turn was long. Not for a place where what others do matters."""
        if time.monotonic() - self._last_yield_at > _MAX_WORK_SECONDS:
            yield_to_loop()
            self._last_yield_at = time.monotonic()
