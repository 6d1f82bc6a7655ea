"""Servers to compare the application with, on the same machine in the same run."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BENCH_FOLDER = Path(__file__).resolve().parent
MESSAGE = "x" * 180  # with its field names about 200 bytes, as the application's shortest message


class Peer:
    """A server; `send(count)` sends messages back to back and returns the time of each (CLOCK_REALTIME)."""

    path = "/"

    def send(self, count: int) -> list[float]:
        raise NotImplementedError


class LimitPeer(Peer):
    def __init__(self, process: subprocess.Popen):
        self._process = process

    def send(self, count: int) -> list[float]:
        self._process.stdin.write("\n" * count)
        self._process.stdin.flush()
        return [float(self._process.stdout.readline().split()[2]) for _ in range(count)]


class HttpPeer(Peer):
    """Publishes by POST."""

    def __init__(self, url: str, path: str):
        self._url, self.path = url, path

    def send(self, count: int) -> list[float]:
        sent_at = []
        for _ in range(count):
            sent_at.append(time.time())
            urllib.request.urlopen(
                urllib.request.Request(self._url, MESSAGE.encode(), method="POST"), timeout=30
            ).read()
        return sent_at


@contextmanager
def run_limit(programs: Path, port: int, streams: int) -> Iterator[Peer]:
    """Run the C loop."""
    arguments = [str(programs / "limit"), str(port), str(streams), "200"]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    os.sched_setaffinity(process.pid, {0})
    try:
        assert process.stdout.readline() == "listening\n"
        yield LimitPeer(process)
    finally:
        process.kill()
        process.wait()


@contextmanager
def run_greenlets(port: int) -> Iterator[Peer]:
    """Run a Flask app with a greenlet and a queue per stream, as tutorials show it."""
    arguments = [
        "-m",
        "gunicorn",
        "-k",
        "gevent",
        "-w",
        "1",
        "-b",
        f"127.0.0.1:{port}",
        "--worker-connections",
        "12000",
    ]
    arguments += ["--no-control-socket", "greenlets:app"]
    # in this folder, because gunicorn would read gunicorn.conf.py in the project root
    process = subprocess.Popen([sys.executable, *arguments], cwd=BENCH_FOLDER, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url + "/ready")
        _pin_to_first_core(process.pid)
        yield HttpPeer(url + "/publish", "/stream")
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
NGINX_CONFIG = """
load_module {module};
daemon off; master_process on; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; worker_rlimit_nofile 60000;
events {{ worker_connections 30000; }}
http {{
  access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e; nchan_max_reserved_memory 512m;
  server {{
    listen 127.0.0.1:{port};
    location = /ready {{ return 200; }}
    location = /publish {{ nchan_publisher; nchan_channel_id all; nchan_message_buffer_length 200; }}
    location = /stream {{ nchan_subscriber eventsource; nchan_channel_id all; nchan_subscriber_first_message newest;
                          nchan_eventsource_event MESSAGE; }}
  }}
}}
"""


@contextmanager
def run_nchan(port: int) -> Iterator[Peer | None]:
    """Run nginx with its nchan module; yields None if Debian's package is not installed."""
    if not shutil.which("nginx") or not NCHAN_MODULE.exists():
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        config = Path(folder) / "nginx.conf"
        config.write_text(NGINX_CONFIG.format(folder=folder, port=port, module=NCHAN_MODULE))
        process = subprocess.Popen(["nginx", "-c", str(config), "-p", folder], stderr=subprocess.DEVNULL)
        try:
            _wait_for(f"http://127.0.0.1:{port}/ready")
            _pin_to_first_core(process.pid)
            yield HttpPeer(f"http://127.0.0.1:{port}/publish", "/stream")
        finally:
            process.terminate()
            process.wait(10)


def list_children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _pin_to_first_core(master: int) -> None:
    for pid in [master, *list_children(master)]:
        os.sched_setaffinity(pid, {0})


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=1).read()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{url} did not answer within 20 s")
