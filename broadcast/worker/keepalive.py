"""Idle connections: kept for the next request, closed when their worker must exit.

gunicorn waits for every connection when a worker ends, even for idle ones, and browsers keep theirs for minutes. Each
reload would take all of `graceful_timeout`, and at a stop the master would kill the worker before it had flushed its
buffers.
"""

from types import TracebackType
from typing import Any, Self

import gevent


class KeepAlive:
    """The idle connections of one worker. `idle_timeout` replaces gunicorn's `timeout_ctx`."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._idle: dict[_IdleTimeout, Any] = {}

    def idle_timeout(self) -> "_IdleTimeout":
        """A context in which one connection waits; it ends without an error at the timeout or at `close_idle`."""
        return _IdleTimeout(self._seconds, self._idle)

    def close_idle(self) -> None:
        """Stop waiting on all connections. One whose request has arrived by then is served."""
        for timeout in list(self._idle):
            gevent.get_hub().loop.run_callback(self._throw_timeout, timeout)

    def _throw_timeout(self, timeout: "_IdleTimeout") -> None:
        if greenlet := self._idle.get(timeout):
            greenlet.throw(timeout)


class _IdleTimeout(gevent.Timeout):
    """A Timeout that knows its greenlet, so that it can be thrown early."""

    def __init__(self, seconds: float, idle: dict[Self, Any]):
        super().__init__(seconds, False)
        self._idle = idle

    def __enter__(self) -> Self:
        self._idle[self] = gevent.getcurrent()
        return super().__enter__()

    def __exit__(self, kind: type | None, problem: BaseException | None, trace: TracebackType | None) -> bool | None:
        del self._idle[self]
        return super().__exit__(kind, problem, trace)
