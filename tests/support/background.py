"""Threads of a test: calls at the same moment, a server, and a repeated call in the background."""

import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from flask import Flask

T = TypeVar("T")


def call_at_once(app: Flask, count: int, action: Callable[[int], T]) -> list[T]:
    """Call `action` with 0, 1, 2 … at the same moment, each in its own thread and context of `app`; return the results.

    Raises the exception of the first call that failed, after all have ended.
    """
    start = threading.Barrier(count)

    def call(n: int) -> T:
        with app.app_context():
            start.wait(20)
            return action(n)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


@contextmanager
def serve_in_thread(server: socketserver.BaseServer) -> Iterator[None]:
    """Serve in another thread until the end of the block, then close the server."""
    with server, ThreadPoolExecutor(1) as thread:
        thread.submit(server.serve_forever, poll_interval=0.02)  # the default delays `shutdown` by half a second
        try:
            yield
        finally:
            server.shutdown()


class BackgroundTask:
    """Calls `action` with 0, 1, 2 … every `interval_seconds` in its own thread. Its exception is raised at the end.

    `start_times` (`time.monotonic()`) and `durations` (seconds) have one entry per call.
    """

    def __init__(self, action: Callable[[int], object], *, interval_seconds: float):
        self.start_times: list[float] = []
        self.durations: list[float] = []
        self._action, self._interval_seconds = action, interval_seconds
        self._error: BaseException | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "BackgroundTask":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(60)
        if self._error:
            raise self._error

    def _run(self) -> None:
        next_call_at = time.monotonic()
        while not self._stopping.wait(next_call_at - time.monotonic()):
            next_call_at = max(
                next_call_at + self._interval_seconds, time.monotonic() - 1
            )  # catch up on late calls, but not after a long pause
            started_at = time.monotonic()
            try:
                self._action(len(self.durations))
            except BaseException as error:
                self._error = error
                return
            self.start_times.append(started_at)
            self.durations.append(time.monotonic() - started_at)
