"""A pause that costs two microseconds, for work that must not keep the other greenlets of the worker waiting.

`gevent.sleep(0)` lets no timer run, and the shortest real sleep takes a millisecond, the resolution of libev's epoll: a tenth
of a fan-out would be spent asleep. Work on SQLite needs such pauses above all: it never waits, so nothing else gives one.
"""

import time

import gevent

_ASLEEP, _AFTER_ALL_OTHERS = -2, -1  # priorities of libev; 0 is everybody's
_WORK_SECONDS = 0.004


def let_others_run() -> None:
    """Return after one turn of the event loop, in which all that was ready, and every timer that was due, has run."""
    hub = gevent.get_hub()
    awake, turn = hub.loop.idle(priority=_ASLEEP), hub.loop.check(priority=_AFTER_ALL_OTHERS)
    awake.start(_nothing)  # an idle watcher keeps the loop from waiting for something to happen
    try:
        hub.wait(turn)
    finally:
        turn.close()
        awake.stop()
        awake.close()


def _nothing() -> None:
    pass


class Breath:
    """Gives other greenlets a turn after every few milliseconds of work, wherever the work says that it can."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def take(self) -> None:
        """Let others run if the work since the last turn was long. Not for a place where what others do matters."""
        if time.monotonic() - self._since > _WORK_SECONDS:
            let_others_run()
            self._since = time.monotonic()
