"""The launcher's child processes: each in its own session, all stopped in reverse order, none left behind.

A stop request or the end of a child interrupts only the launcher's waits. An exception raised by a signal handler could
strike between starting a child and recording it, and that child would be forgotten. So handlers only set flags, and
every wait goes through `StopSignals`.

Its own session keeps the terminal's Ctrl-C from a child: only the launcher gets it, and stops gunicorn before the Redis
that gunicorn's workers still use. It also makes the child's pid the id of its process group, so that workers orphaned
by a crashed master can be stopped too.

When the launcher itself is killed (SIGKILL), the kernel sends each child SIGTERM (`prctl(PR_SET_PDEATHSIG)`); gunicorn
passes it on to its workers. The signal is sent when the *thread* that started the child ends, so children are started
from the main thread only. macOS has no such call: there a killed launcher leaves its children running.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

ROOT = Path(__file__).resolve().parents[2]  # contains app.py, wsgi.py and migrations/; children run here
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: no imports between fork and exec


class LaunchFailed(Exception):
    """Nothing serves (any more). One sentence, printed as it is: what is wrong, and what to do about it."""


class StopRequested(Exception):
    """Ctrl-C, SIGTERM or a closed terminal. Raised only where the launcher waits, never in the middle of a step."""


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel send this process SIGTERM when its parent, the process `parent_pid`, ends. Survives exec."""
    if _libc is None:
        return
    _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM), *[ctypes.c_ulong(0)] * 3)
    if os.getppid() != parent_pid:  # it ended before the call above, which then never fires
        os._exit(1)  # not a signal: before exec the launcher's own handlers would swallow it


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


@dataclass(frozen=True)
class ChildProcess:
    """A running process, the leader of its session. It gets SIGTERM, and after `grace_seconds` SIGKILL."""

    name: str
    process: subprocess.Popen
    grace_seconds: float
    log: Path | None = None  # its log file; None if it writes to the terminal

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None


class ChildProcesses:
    """Starts, watches and stops processes; a context manager that leaves none running.

    `environ` is the environment of children started from now on.
    """

    def __init__(self, signals: StopSignals, environ: Mapping[str, str]):
        self._signals, self.environ = signals, dict(environ)
        self._running: list[ChildProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._running:
            self._terminate(self._running.pop())

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        grace_seconds: float,
        output: IO | None = None,
        log: Path | None = None,
    ) -> ChildProcess:
        """Start `command` and return at once. `output` receives stdout and stderr; with None both go to the terminal.
        `log` is the path of `output`, if it has one: the error about an ended child names it.
        """
        launcher_pid = os.getpid()
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(launcher_pid),
            )
        except OSError as problem:
            reason = f"{problem.filename or command[0]}: {problem.strerror}"
            raise LaunchFailed(f"{name} cannot be started: {reason}.") from None
        child = ChildProcess(name, process, grace_seconds, log)
        self._running.append(child)
        return child

    def run(self, name: str, command: Sequence[str | Path], *, output: IO | None = None) -> None:
        """Run `command` to its end. Raises LaunchFailed if it fails or another child ends meanwhile."""
        child = self.start(name, command, grace_seconds=5, output=output)
        others = [other for other in self._running if other is not child]
        while not child.has_ended:
            _check_running(others)
            self._signals.wait_unless_stopped(None)
        self._running.remove(child)
        if child.process.returncode != 0:
            raise LaunchFailed(f"{name} failed ({_describe_exit(child)}). The messages above say why.")

    def wait_until(self, condition: Callable[[], bool], *, seconds: float) -> bool:
        """Check `condition` every 50 ms; False after `seconds`. Raises LaunchFailed if a child ends."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            _check_running(self._running)
            self._signals.wait_unless_stopped(0.05)
        return True

    def watch(self) -> None:
        """Block until a child ends on its own (raises LaunchFailed) or someone asks to stop (raises StopRequested)."""
        while True:
            _check_running(self._running)
            self._signals.wait_unless_stopped(None)

    def _terminate(self, child: ChildProcess) -> None:
        deadline = time.monotonic() + child.grace_seconds
        if not child.has_ended:
            child.process.terminate()
        while not child.has_ended and time.monotonic() < deadline:
            self._signals.wait(max(0.0, deadline - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)  # what is left of the group, perhaps the child itself
        child.process.wait()


def _check_running(children: Sequence[ChildProcess]) -> None:
    for child in children:
        if child.has_ended:
            log_hint = f"Its log is {child.log}." if child.log else "Its messages are above."
            raise LaunchFailed(
                f"{child.name} ended unexpectedly ({_describe_exit(child)}), so everything was stopped. {log_hint}"
            )


def _describe_exit(child: ChildProcess) -> str:
    exit_code = child.process.returncode
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"
