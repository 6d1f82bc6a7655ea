"""The launcher's ears: a request to stop, or the end of a child, interrupts its waiting and nothing else.

An exception raised by a signal handler could strike between starting a child and noting it down, and that child would
be forgotten. So handlers only take notes, and every wait of the launcher goes through `pause`.
"""

import os
import select
import signal
from contextlib import suppress
from typing import Self

from broadcast.launcher.errors import StopRequested


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP, remembered. One per process, used from the main thread."""

    def __init__(self) -> None:
        self.requested = False
        self._wakeup, self._written_by_python = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self._written_by_python, False)

    @classmethod
    def install(cls) -> Self:
        """Replace the process's handlers; from now on Ctrl-C raises nothing."""
        signals = cls()
        signal.set_wakeup_fd(signals._written_by_python, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, signals._note)
        signal.signal(signal.SIGTERM, signals._note)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup make run` means to outlive its terminal
            signal.signal(signal.SIGHUP, signals._note)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler it would not wake the pipe
        return signals

    def pause(self, seconds: float | None) -> None:
        """Wait until a child changed, a signal came or `seconds` passed (None: for ever). Raises StopRequested."""
        if not self.requested:
            self.wait(seconds)
        if self.requested:
            raise StopRequested

    def wait(self, seconds: float | None) -> None:
        """Like `pause`, for those already stopping: returns early, raises nothing."""
        select.select([self._wakeup], [], [], seconds)
        with suppress(BlockingIOError):
            while os.read(self._wakeup, 512):
                pass

    def _note(self, *_: object) -> None:
        self.requested = True
