"""Child processes: none is left behind, and each failure is one sentence."""

import os
import signal
import sys
import tempfile
from contextlib import suppress

import pytest

from broadcast.launcher.children import ChildProcesses, LaunchFailed, StopRequested
from tests.support.stop_signals import stop_signals  # noqa: F401 - a fixture

FOREVER = "import time; time.sleep(600)"
DEAF_WITH_A_CHILD = f"""
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", {FOREVER!r}])
print(child.pid, flush=True)
child.wait()
"""
SAYS_WHEN_ENDED = """
import signal, sys, time
def end(*_):
    print("{name}", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture
def children(stop_signals):  # noqa: F811
    with ChildProcesses(stop_signals, os.environ) as children:
        yield children


def program(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_running(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        with suppress(OSError), open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "XZ"
    return False


def test_a_child_deaf_to_sigterm_is_killed_with_what_it_started(stop_signals):  # noqa: F811
    with tempfile.TemporaryFile() as output:
        with ChildProcesses(stop_signals, os.environ) as children:
            deaf = children.start("deaf", program(DEAF_WITH_A_CHILD), grace_seconds=0.2, output=output)
            assert children.wait_until(lambda: os.pread(output.fileno(), 20, 0).endswith(b"\n"), seconds=10)
            below = int(os.pread(output.fileno(), 20, 0))
            assert is_running(below)
        assert deaf.has_ended
        assert not is_running(below) or _ended_soon(children, below)


def _ended_soon(children: ChildProcesses, pid: int) -> bool:
    """SIGKILL is on its way to the whole group; only the child itself was waited for."""
    return children.wait_until(lambda: not is_running(pid), seconds=5)


def test_the_last_one_started_is_the_first_one_ended(stop_signals):  # noqa: F811
    with tempfile.TemporaryFile() as output:

        def said() -> list[bytes]:
            return os.pread(output.fileno(), 100, 0).split()

        with ChildProcesses(stop_signals, os.environ) as children:
            for number, name in enumerate(("Redis", "gunicorn"), start=1):
                says = program(SAYS_WHEN_ENDED.format(name=name))
                children.start(name, says, grace_seconds=5, output=output)
                assert children.wait_until(lambda number=number: len(said()) == number, seconds=10)
        assert said() == [b"started", b"started", b"gunicorn", b"Redis"]


def test_a_step_that_fails_is_named_with_its_exit_code(children):
    with pytest.raises(LaunchFailed, match=r"Migrating failed \(exit code 3\)"):
        children.run("Migrating", program("raise SystemExit(3)"))


def test_a_program_that_is_not_there_is_named(children):
    with pytest.raises(LaunchFailed, match=r"Redis cannot be started: /nonexistent/redis-server: No such file"):
        children.start("Redis", ["/nonexistent/redis-server"], grace_seconds=1)


def test_waiting_ends_when_a_child_dies(children):
    children.start("gunicorn", program("raise SystemExit(4)"), grace_seconds=1)
    with pytest.raises(LaunchFailed, match=r"gunicorn ended unexpectedly \(exit code 4\).* Its messages are above\."):
        children.wait_until(lambda: False, seconds=10)


def test_log_of_a_child_that_died_is_named(children, tmp_path):
    log = tmp_path / "redis.log"
    with log.open("wb") as output:
        dying = program("print('out of memory'); raise SystemExit(1)")
        children.start("Redis", dying, grace_seconds=1, output=output, log=log)
    with pytest.raises(LaunchFailed, match=f"Its log is {log}"):
        children.wait_until(lambda: False, seconds=10)
    assert log.read_text() == "out of memory\n"


def test_waiting_ends_when_time_is_over(children):
    assert children.wait_until(lambda: False, seconds=0.1) is False


def test_a_request_to_stop_is_heard_at_the_next_wait(children, stop_signals):  # noqa: F811
    children.start("gunicorn", program(FOREVER), grace_seconds=0.2)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(StopRequested):
        children.wait_until(lambda: False, seconds=10)
