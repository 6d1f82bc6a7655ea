"""The real launcher: everything it starts serves, and ends with it, however it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from tests.support.ports import find_free_port
from tests.support.seeded_databases import copy_sqlite_template
from tests.support.system import is_running

ROOT = Path(__file__).parents[3]
DEADLINE_SECONDS = 60.0
pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the process tree from /proc (Linux)"),
]


def parent_of(pid: int) -> int:
    """See proc(5). A process that is gone has no parent."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def descendants(pid: int) -> list[int]:
    everyone = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    children = [other for other in everyone if parent_of(other) == pid]
    return children + [below for child in children for below in descendants(child)]


def eventually(condition: Callable[[], bool], *, seconds: float = DEADLINE_SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@dataclass
class Launched:
    """One launcher, its standard output in a file, and every process that was ever seen below it."""

    process: subprocess.Popen
    output: Path
    port: int
    seen: set[int]

    def says(self, text: str) -> bool:
        return text in self.output.read_text()

    def wait_until_ready(self) -> None:
        assert eventually(lambda: self.says("Ready: ") or self.process.poll() is not None)
        assert f"Ready: http://127.0.0.1:{self.port}\n" in self.output.read_text()
        assert eventually(lambda: len(descendants(self.process.pid)) >= 4)  # Redis, gunicorn, its two workers
        self.note_children()

    def note_children(self) -> None:
        self.seen.update(descendants(self.process.pid))

    def child(self, text: str) -> int:
        """Return the pid of the launcher's own child whose command line has `text`."""
        own = [pid for pid in self.seen if parent_of(pid) == self.process.pid]
        return next(pid for pid in own if text in Path(f"/proc/{pid}/cmdline").read_text())

    def all_ended(self) -> bool:
        return eventually(lambda: not any(map(is_running, self.seen)))


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Launched]]:
    """Start launchers on the embedded defaults, whatever this test run was told to use; end all they left.

    They find the cast in their database, unless they are to begin `on_empty` ground.
    """
    launched: list[Launched] = []

    def _start(*, on_empty: bool = False, **environ: str) -> Launched:
        if not launched and not on_empty:
            copy_sqlite_template(tmp_path / "var")
        port = int(environ.get("PORT") or find_free_port())
        elsewhere = ("DATABASE_URL", "REDIS_URL", "APP_ENV", "HOST")
        inherited = {name: value for name, value in os.environ.items() if name not in elsewhere}
        settings = {"PORT": str(port), "DATA_DIR": str(tmp_path / "var"), "WEB_CONCURRENCY": "2", "DEMO": "0"}
        output = tmp_path / f"output-{len(launched)}"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "broadcast.launcher"],
                cwd=ROOT,
                env={**inherited, **settings, **environ},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        launched.append(Launched(process, output, port, set()))
        return launched[-1]

    yield _start
    for each in launched:
        each.note_children()
        for pid in [each.process.pid, *filter(is_running, each.seen)]:
            if pid != each.process.pid or each.process.poll() is None:
                os.kill(pid, signal.SIGKILL)
        each.process.wait()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_ends_all_it_started(start, stop):
    launcher = start()
    launcher.wait_until_ready()
    launcher.process.send_signal(stop)
    assert launcher.process.wait(DEADLINE_SECONDS) == 0
    assert launcher.all_ended()
    assert launcher.says("Stopped.")
    assert not launcher.says("Traceback")


def test_killed_it_takes_all_it_started_along(start):
    launcher = start()
    launcher.wait_until_ready()
    launcher.process.kill()
    launcher.process.wait()
    assert launcher.all_ended()


@pytest.mark.parametrize(("text", "where"), [("gunicorn", "Its messages are above."), ("redis.sock", "Its log is ")])
def test_a_child_that_dies_ends_everything_with_a_sentence(start, tmp_path, text, where):
    launcher = start()
    launcher.wait_until_ready()
    os.kill(launcher.child(text), signal.SIGKILL)
    assert launcher.process.wait(DEADLINE_SECONDS) == 1
    assert launcher.all_ended()
    assert launcher.says("ended unexpectedly (killed by SIGKILL)")
    assert launcher.says(where)
    for log in re.findall(r"Its log is (\S+)\.\n", launcher.output.read_text()):
        assert Path(log) == tmp_path / "var/redis.log"
        assert Path(log).stat().st_size


def test_workers_end_with_a_killed_master_even_when_the_launcher_is_gone_too(start):
    launcher = start()
    launcher.wait_until_ready()
    master = launcher.child("gunicorn")
    workers = descendants(master)
    launcher.process.send_signal(signal.SIGSTOP)  # it can neither see the master die nor end the workers
    os.kill(master, signal.SIGKILL)
    assert len(workers) == 2
    assert eventually(lambda: not any(map(is_running, workers)))


def test_a_restart_keeps_the_secret_key_and_needs_no_cleaning_up(start, tmp_path):
    keys = []
    for _ in range(2):
        launcher = start()
        launcher.wait_until_ready()
        keys.append((tmp_path / "var" / "secret_key").read_text())
        launcher.process.terminate()
        assert launcher.process.wait(DEADLINE_SECONDS) == 0
    assert keys[0] == keys[1]


def test_first_run_prints_a_code_that_makes_the_administrator_and_later_starts_are_silent(start):
    launcher = start(on_empty=True)
    launcher.wait_until_ready()
    assert eventually(lambda: launcher.says("First run: "))
    [code] = re.findall(
        rf"http://127.0.0.1:{launcher.port}/setup and enter the code (\S+)", launcher.output.read_text()
    )
    browser = build_opener(HTTPCookieProcessor())
    page = browser.open(f"http://127.0.0.1:{launcher.port}/", timeout=20).read().decode()
    assert 'href="/setup"' in page
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)[1]
    form = {"csrf_token": token, "code": code, "username": "ada", "password": "correct horse battery"}
    answer = browser.open(f"http://127.0.0.1:{launcher.port}/setup", urlencode(form).encode(), timeout=20)
    assert answer.url.endswith("/console/")
    launcher.process.terminate()
    assert launcher.process.wait(DEADLINE_SECONDS) == 0
    again = start()
    again.wait_until_ready()
    again.process.terminate()
    assert again.process.wait(DEADLINE_SECONDS) == 0
    assert not again.says("First run: ")


def test_a_second_launcher_on_the_same_folder_is_refused_and_the_first_serves_on(start):
    first = start()
    first.wait_until_ready()
    second = start()
    assert second.process.wait(DEADLINE_SECONDS) == 1
    assert second.says(f"Another launcher (pid {first.process.pid}) already runs")
    assert first.process.poll() is None


def test_a_port_in_use_is_said_before_anything_is_started(start, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        launcher = start(PORT=str(taken.getsockname()[1]))
        assert launcher.process.wait(DEADLINE_SECONDS) == 1
    assert launcher.says("is in use by another program")
    assert not (tmp_path / "var" / "redis.log").exists()


def test_wrong_settings_are_said_without_a_traceback(start, tmp_path):
    launcher = start(on_empty=True, APP_ENV="production", DEMO="1")
    assert launcher.process.wait(DEADLINE_SECONDS) == 1
    assert launcher.says("DEMO")
    assert not launcher.says("Traceback")
    assert not (tmp_path / "var").exists()
