"""Connections on which nobody asks: kept for the next request, closed when their worker is told to go.

gunicorn waits for every connection when a worker ends, for idle ones too, and a browser keeps its own for minutes. Each reload
would then take all of `graceful_timeout`, and at a stop the master would kill the worker before it wrote down what it knew.
"""

from types import TracebackType
from typing import Any, Self

import gevent


class KeepAlive:
    """The connections of one worker that wait for a request. `wait` stands in for gunicorn's `timeout_ctx`."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._waiting: dict[_Wait, Any] = {}

    def wait(self) -> "_Wait":
        """A context in which one connection waits; it is left without an error when the time is over, or at the `end`."""
        return _Wait(self._seconds, self._waiting)

    def end(self) -> None:
        """Let no connection wait any longer. One that has its request by then is served."""
        for wait in list(self._waiting):
            gevent.get_hub().loop.run_callback(self._give_up, wait)

    def _give_up(self, wait: "_Wait") -> None:
        if greenlet := self._waiting.get(wait):
            greenlet.throw(wait)


class _Wait(gevent.Timeout):
    """A Timeout that also says whose it is, so that it can be thrown before its time."""

    def __init__(self, seconds: float, waiting: dict[Self, Any]):
        super().__init__(seconds, False)
        self._waiting = waiting

    def __enter__(self) -> Self:
        self._waiting[self] = gevent.getcurrent()
        return super().__enter__()

    def __exit__(self, kind: type | None, problem: BaseException | None, trace: TracebackType | None) -> bool | None:
        del self._waiting[self]
        return super().__exit__(kind, problem, trace)
