"""A pause that costs two microseconds, for work that must not keep the other greenlets of the worker waiting.

`gevent.sleep(0)` lets no timer run, and the shortest real sleep takes a millisecond, the resolution of libev's epoll: a tenth
of a fan-out would be spent asleep.
"""

import gevent

_ASLEEP, _AFTER_ALL_OTHERS = -2, -1  # priorities of libev; 0 is everybody's


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
