"""Signal handling of the launcher: a stop request or the end of a child interrupts only its waits.

An exception raised by a signal handler could strike between starting a child and recording it, and that child would be
forgotten. So handlers only set flags, and every wait of the launcher goes through `wait_unless_stopped`.
"""

import os
import select
import signal
from contextlib import suppress
from typing import Self

from broadcast.launcher.errors import StopRequested


class StopSignals:
    """Records SIGINT, SIGTERM and SIGHUP. One per process, used from the main thread."""

    def __init__(self) -> None:
        self.is_stop_requested = False
        self._wakeup_reader, self._wakeup_writer = os.pipe()
        os.set_blocking(self._wakeup_reader, False)
        os.set_blocking(self._wakeup_writer, False)

    @classmethod
    def install(cls) -> Self:
        """Replace the process's handlers; from now on Ctrl-C raises nothing."""
        signals = cls()
        signal.set_wakeup_fd(signals._wakeup_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, signals._record_request)
        signal.signal(signal.SIGTERM, signals._record_request)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup make run` must outlive its terminal
            signal.signal(signal.SIGHUP, signals._record_request)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler it would not wake the pipe
        return signals

    def wait_unless_stopped(self, seconds: float | None) -> None:
        """Wait until a child changes, a signal arrives or `seconds` pass (None: no limit). Raises StopRequested."""
        if not self.is_stop_requested:
            self.wait(seconds)
        if self.is_stop_requested:
            raise StopRequested

    def wait(self, seconds: float | None) -> None:
        """Like `wait_unless_stopped`, for use while stopping: returns early, raises nothing."""
        select.select([self._wakeup_reader], [], [], seconds)
        with suppress(BlockingIOError):
            while os.read(self._wakeup_reader, 512):
                pass

    def _record_request(self, *_: object) -> None:
        self.is_stop_requested = True
