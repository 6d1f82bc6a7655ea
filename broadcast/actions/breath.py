"""A turn for the other greenlets in the middle of long work; SQLite never waits, so nothing else would give them one."""

import time

import gevent

_WORK_SECONDS = 0.004
_REST_SECONDS = 0.0005  # sleep(0) would starve timers


class Breath:
    """Gives other greenlets a turn after every few milliseconds of work."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def take(self) -> None:
        if time.monotonic() - self._since > _WORK_SECONDS:
            gevent.sleep(_REST_SECONDS)
            self._since = time.monotonic()
