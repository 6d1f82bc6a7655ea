"""A repeated call in the background of a test."""

import threading
import time
from collections.abc import Callable


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
