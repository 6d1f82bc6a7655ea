"""A booting node refuses connections until a worker serves; during a reload some worker always serves."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.process_fixtures import wait_for_workers
from tests.support.system import System, run_system, wait_for

pytestmark = [pytest.mark.service, pytest.mark.alike]


def ask(system: System, *, seconds: float = 1.0) -> str:
    """What a client gets now: the status, or "refused"; a client that waits longer than `seconds` fails by its timeout."""
    connection = http.client.HTTPConnection("127.0.0.1", system.port, timeout=seconds)
    try:
        connection.request("GET", "/healthz", headers={"Connection": "close"})
        return str(connection.getresponse().status)
    except (ConnectionRefusedError, ConnectionResetError):
        return "refused"
    except http.client.RemoteDisconnected:
        return "cut"
    finally:
        connection.close()


class Asking:
    """Asks again and again in a thread, until `stop`."""

    def __init__(self, system: System):
        self.answers: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=[system])

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()

    def _run(self, system: System) -> None:
        while not self._over.is_set():
            try:
                self.answers.append(ask(system, seconds=20))
            except TimeoutError:
                self.answers.append("waited")
            time.sleep(0.01)


@pytest.fixture
def slow_path(tmp_path: Path) -> str:
    """A folder for PYTHONPATH that makes the application take a second and a half to be made, long enough to ask meanwhile."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys, importlib.abc, importlib.util\n"
        "class Slow(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'broadcast.factory':\n"
        "            import time; time.sleep(1.5)\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    return str(folder)


def test_node_that_boots_refuses_at_once_and_never_lets_anybody_wait(own_system, slow_path):
    system = own_system()
    system.stop()
    system.environ["PYTHONPATH"] = slow_path
    with Asking(system) as asking:
        system.start()
    assert "refused" in asking.answers
    assert asking.answers[-1] == "200"
    first = asking.answers.index("200")
    assert set(asking.answers[:first]) <= {"refused", "cut"}
    assert set(asking.answers[first:]) == {"200"}


def test_reload_has_somebody_who_serves_all_the_time(own_system, slow_path):
    system = own_system(PYTHONPATH=slow_path)
    old = set(wait_for_workers(system))
    with Asking(system) as asking:
        os.kill(system.master_pid, signal.SIGHUP)
        wait_for(lambda: len(set(system.get_worker_pids()) - old) == 2, description="the new workers to be there")
        assert old <= set(system.get_worker_pids()), "the old workers left before the new ones served"
        wait_for(lambda: not old & set(system.get_worker_pids()), seconds=60, description="the old workers to leave")
        count = len(asking.answers)
        wait_for(lambda: len(asking.answers) > count + 20, description="some more answers")
    assert set(asking.answers) == {"200"}


def test_stop_during_a_reload_is_no_slower(own_system, slow_path):
    system = own_system(PYTHONPATH=slow_path)
    old = set(wait_for_workers(system))
    os.kill(system.master_pid, signal.SIGHUP)
    wait_for(lambda: len(set(system.get_worker_pids()) - old) == 2, description="the new workers to be there")
    system.process.send_signal(signal.SIGINT)
    assert system.process.wait(30) == 0
    assert "killed" not in system.output.read_text().lower()


def test_systemd_hears_that_it_is_ready_when_it_serves_and_not_before(own_system, tmp_path):
    system = own_system()
    system.stop()
    address = str(tmp_path / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(60)
        system.environ["NOTIFY_SOCKET"] = address
        starting = threading.Thread(target=lambda: heard.append((sock.recv(200), ask(system, seconds=20))))
        heard: list[tuple[bytes, str]] = []
        starting.start()
        system.start()
        starting.join(60)
    assert heard == [(b"READY=1", "200")]


def test_workers_live_when_there_is_no_room_in_memory_for_their_metrics():
    """A page of a mapped file that cannot be had would end each of them, at its first figure."""
    alone = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64k none /dev/shm && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system of its own")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, run_system(Path(folder)) as system:
        system.stop()
        system.command_prefix = alone
        system.start()
        workers = wait_for_workers(system)
        metrics = urllib.request.urlopen(f"{system.url}/metrics", timeout=10).read().decode()
        assert "broadcast_log_seq" in metrics
        assert system.get_worker_pids() == workers
        assert (system.folder / "var/metrics").is_dir()
