"""The processes that the launcher started: each in its own session, all ended in reverse order, none left behind.

A session of its own keeps the terminal's Ctrl-C from reaching a child: only the launcher hears it, and ends gunicorn
before the Redis that gunicorn's workers still talk to. It also makes the child's pid the name of its process group, so
that workers orphaned by a crashed master can be ended too.

When the launcher itself is killed (SIGKILL), the kernel sends each child SIGTERM (`prctl(PR_SET_PDEATHSIG)`); gunicorn
passes it on to its workers. The signal comes when the *thread* that started the child ends, so children are started
from the main thread only. macOS has no such call: there a killed launcher leaves its children to be ended by hand.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from broadcast.launcher.errors import LaunchFailed
from broadcast.launcher.signals import StopSignals

ROOT = Path(__file__).resolve().parents[2]  # where app.py, wsgi.py and migrations/ are; children run here
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: no imports between fork and exec


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel send this process SIGTERM when its parent, the process `parent_pid`, is gone. Survives exec."""
    if _libc is None:
        return
    _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM), *[ctypes.c_ulong(0)] * 3)
    if os.getppid() != parent_pid:  # it ended before the call above, which then never fires
        os._exit(1)  # not a signal: before exec the launcher's own handlers would swallow it


@dataclass(frozen=True)
class ChildProcess:
    """One running process, the leader of its session. After `grace_seconds` a polite end becomes SIGKILL."""

    name: str
    process: subprocess.Popen
    grace_seconds: float
    log: Path | None = None  # where it writes what it has to say; None: to the terminal

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None


class ChildProcesses:
    """Starts, watches and ends processes; a context manager that leaves none running."""

    def __init__(self, signals: StopSignals):
        self._signals = signals
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
        environ: Mapping[str, str],
        grace_seconds: float,
        output: IO | None = None,
        log: Path | None = None,
    ) -> ChildProcess:
        """Start `command` and return at once. `output` takes stdout and stderr; None leaves both to the terminal. `log` is
        its file, if it has a name: whoever reads that the child ended is told to look there.
        """
        launcher_pid = os.getpid()
        try:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environ,
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

    def run(
        self, name: str, command: Sequence[str | Path], *, environ: Mapping[str, str], output: IO | None = None
    ) -> None:
        """Run `command` to its end. Raises LaunchFailed when it fails or when another child ends meanwhile."""
        child = self.start(name, command, environ=environ, grace_seconds=5, output=output)
        others = [other for other in self._running if other is not child]
        while not child.has_ended:
            _check_running(others)
            self._signals.wait_unless_stopped(None)
        self._running.remove(child)
        if child.process.returncode != 0:
            raise LaunchFailed(f"{name} failed ({_describe_exit(child)}). The messages above say why.")

    def wait_until(self, condition: Callable[[], bool], *, seconds: float) -> bool:
        """Ask `condition` every 50 ms for at most `seconds`; False when time ran out. A dead child ends the wait."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            _check_running(self._running)
            self._signals.wait_unless_stopped(0.05)
        return True

    def watch(self) -> None:
        """Block until a child ends by itself (raises LaunchFailed) or someone asks to stop (raises StopRequested)."""
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
            os.killpg(child.process.pid, signal.SIGKILL)  # what is left of the group, the child itself if it must be
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
