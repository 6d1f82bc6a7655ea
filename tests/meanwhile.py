"""Something that goes on while a test does something else."""

import threading
import time
from collections.abc import Callable


class Meanwhile:
    """Calls `act` with 0, 1, 2 … in a thread of its own, `every_seconds`. What it raises is raised again at the end.

    `began` and `took` have the moment (`time.monotonic()`) and the seconds of each call.
    """

    def __init__(self, act: Callable[[int], object], *, every_seconds: float):
        self.began: list[float] = []
        self.took: list[float] = []
        self._act, self._every_seconds = act, every_seconds
        self._problem: BaseException | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Meanwhile":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(60)
        if self._problem:
            raise self._problem

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ending.wait(due - time.monotonic()):
            due = max(
                due + self._every_seconds, time.monotonic() - 1
            )  # a late call is made up for, a long pause is not
            began = time.monotonic()
            try:
                self._act(len(self.took))
            except BaseException as problem:
                self._problem = problem
                return
            self.began.append(began)
            self.took.append(time.monotonic() - began)
