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
        self._idle: dict[_IdleTimeout, Any] = {}

    def idle_timeout(self) -> "_IdleTimeout":
        """A context in which one connection waits; it is left without an error when the time is over, or at the
        `close_idle`.
        """
        return _IdleTimeout(self._seconds, self._idle)

    def close_idle(self) -> None:
        """Let no connection wait any longer. One that has its request by then is served."""
        for timeout in list(self._idle):
            gevent.get_hub().loop.run_callback(self._throw_timeout, timeout)

    def _throw_timeout(self, timeout: "_IdleTimeout") -> None:
        if greenlet := self._idle.get(timeout):
            greenlet.throw(timeout)


class _IdleTimeout(gevent.Timeout):
    """A Timeout that also says whose it is, so that it can be thrown before its time."""

    def __init__(self, seconds: float, idle: dict[Self, Any]):
        super().__init__(seconds, False)
        self._idle = idle

    def __enter__(self) -> Self:
        self._idle[self] = gevent.getcurrent()
        return super().__enter__()

    def __exit__(self, kind: type | None, problem: BaseException | None, trace: TracebackType | None) -> bool | None:
        del self._idle[self]
        return super().__exit__(kind, problem, trace)
