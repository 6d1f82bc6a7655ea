"""The system as an operator runs it: `python -m broadcast.launcher`, two workers, on loopback, in its own folder."""

import copy
import http.client
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from broadcast.config.settings import Settings
from broadcast.factory import create_app
from broadcast.store.database import db
from tests.support.databases import DATABASE_URL, SECOND_REDIS_URL, is_shared_redis, temporary_database
from tests.support.ports import find_free_port
from tests.support.seeded_databases import (
    PROJECT_ROOT,
    UNINHERITED_VARIABLES,
    copy_sqlite_template,
    create_from_template,
)
from tests.support.users import TEST_USERS

# How much longer a test waits before it gives up than on a fast, idle machine. A missed deadline means that something
# is broken, never that it is slow. A large factor costs nothing: a wait ends as soon as its condition holds.
TIMEOUT_FACTOR = 5
_UNVERIFIED_TLS_CONTEXT = ssl._create_unverified_context()


def wait_for(condition: Callable[[], Any], *, seconds: float = 10, description: str = "the condition") -> Any:
    """Return the first truthy value of `condition`; fail with `description` after TIMEOUT_FACTOR times `seconds`."""
    deadline = time.monotonic() + TIMEOUT_FACTOR * seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"waited {TIMEOUT_FACTOR * seconds} s in vain for {description}"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether that process exists and has not ended; a zombie counts as ended (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "XZ"
    except OSError:
        return False


def open_connection(url: str, *, timeout: float) -> http.client.HTTPConnection:
    """Open a connection to the host of `url`; self-signed certificates are accepted."""
    host = urlsplit(url).netloc
    if url.startswith("https:"):
        return http.client.HTTPSConnection(host, timeout=timeout, context=_UNVERIFIED_TLS_CONTEXT)
    return http.client.HTTPConnection(host, timeout=timeout)


class System:
    """Starts on entering and stops everything it started on leaving. `url` is where it serves."""

    def __init__(self, folder: Path, *, database_url: str | None = None, redis_url: str | None = None, **settings: str):
        self.folder, self.port = folder, find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environ = {name: value for name, value in os.environ.items() if name not in UNINHERITED_VARIABLES}
        self.environ |= {"PORT": str(self.port), "DATA_DIR": str(folder / "var"), "DEMO": "0", "RATELIMIT_ENABLED": "0"}
        self.environ |= {
            "WEB_CONCURRENCY": "2",
            "STREAMS_PER_USER": "1000",
            "UNDO_SECONDS": "0",
            "METRICS_FROM": "127.0.0.1",
            "PYTHONUNBUFFERED": "1",
        } | settings
        if database_url:
            self.environ["DATABASE_URL"] = database_url
        if redis_url:
            self.environ["REDIS_URL"] = redis_url
        self.output = folder / "output.txt"
        self.code_dir = PROJECT_ROOT  # the code that runs
        self.command_prefix: list[str] = []  # a prefix of the launcher's command; it must exec the launcher
        self.process: subprocess.Popen | None = None
        self._tokens: dict[str, str] = {}

    def __enter__(self) -> "System":
        try:
            self._start_with_users()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it, which is fastest; stop it gracefully if its Redis lives on and would keep its presence entries."""
        self.stop() if is_shared_redis(self.environ.get("REDIS_URL")) else self.kill()
        data_dir = Path(self.environ["DATA_DIR"])
        shutil.rmtree(
            f"/dev/shm/broadcast-{os.getuid()}-{zlib.crc32(bytes(data_dir)):08x}", ignore_errors=True
        )  # gunicorn.conf.py

    def _start_with_users(self) -> None:
        url = self.environ.get("DATABASE_URL")
        tokens = create_from_template(url) if url else copy_sqlite_template(Path(self.environ["DATA_DIR"]))
        self.start()
        self._tokens = tokens or json.loads(self.run_module("tests.support.seed_test_users"))
        wait_for(
            lambda: self.find_answering_workers() >= set(self.get_worker_pids()),
            seconds=60,
            description="every worker to answer",
        )

    def start(self) -> None:
        """Start and wait until it serves. Call from the main thread: it ends with the thread that started it."""
        command = [*self.command_prefix, sys.executable, "-m", "broadcast.launcher", "--end-with-parent"]
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(command, cwd=self.code_dir, env=self.environ, stdout=output, stderr=output)
        wait_for(self._is_ready, seconds=60, description=f"Ready in {self.output}")

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30 * TIMEOUT_FACTOR)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kill(self) -> None:
        """Send SIGKILL to the launcher and all its children, as a power failure would. Returns when none runs."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGSTOP)  # so that it starts nothing more
        group_leaders = _read_child_pids(
            self.process.pid
        )  # each leads its own process group, see broadcast.launcher.children
        all_pids = [pid for leader in group_leaders for pid in (leader, *_read_child_pids(leader))]
        for leader in group_leaders:
            with suppress(ProcessLookupError):
                os.killpg(leader, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        wait_for(lambda: not any(map(is_running, all_pids)), description="all processes of the system to be gone")

    def with_url(self, url: str) -> Self:
        """Return the same system at another address, for example behind a proxy."""
        system = copy.copy(self)
        system.url, system.port = url, urlsplit(url).port
        return system

    def run_flask(self, *args: str, stdin: str = "") -> str:
        """Run `flask --app app …` on the same database; return its output. Runs in a thread, which saves the imports of
        a new process.
        """
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._run_cli_command, args, stdin).result()

    def _run_cli_command(self, args: Sequence[str], stdin: str) -> str:
        app = create_app(Settings.load(self.build_command_environ()))
        result = app.test_cli_runner().invoke(args=args, input=stdin + "\n")
        with app.app_context():
            db.engine.dispose()
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    def run_module(self, module: str, *args: str, stdin: str = "") -> str:
        """Run `python -m module …` in the system's environment; return its output."""
        result = subprocess.run(
            [sys.executable, "-m", module, *args],
            cwd=self.code_dir, env=self.build_command_environ(), input=stdin + "\n", capture_output=True, text=True,
            timeout=60 * TIMEOUT_FACTOR,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def build_command_environ(self) -> dict[str, str]:
        environ = {"REDIS_URL": self.redis_url} | self.environ
        environ.pop("FAILPOINTS", None)  # meant for the workers only
        return environ

    @property
    def redis_url(self) -> str:
        """The URL of the embedded server, a Unix socket in the data folder."""
        return f"unix://{self.folder / 'var' / 'redis.sock'}"

    def create_user(self, *roles: str) -> str:
        """Create a user with the password of the test users and return the username: for tests that change a user."""
        username = f"dora{secrets.token_hex(4)}"
        role_options = [f"--role={role}" for role in roles]
        self.run_flask(
            "create-user", "--username", username, "--password-stdin", *role_options, stdin=TEST_USERS[0].password
        )
        return username

    def create_recipients(self, count: int) -> list[str]:
        """Create that many users without a role; return a token for each."""
        return json.loads(self.run_module("tests.support.seed_recipients", str(count)))

    def get_token(self, username: str, scope: str = "inbox") -> str:
        """Return a token of that user, the same one each time."""
        name = f"{username} {scope}"
        if name not in self._tokens:
            self._tokens[name] = self.run_flask("create-token", "--user", username, "--scope", scope)
        return self._tokens[name]

    def call(
        self, method: str, path: str, *, token: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send one JSON request; return the status and the decoded body, None if it is not JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} | (headers or {})
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20, context=_UNVERIFIED_TLS_CONTEXT) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            body = error.read()
            return error.code, json.loads(body or b"null") if "json" in error.headers["Content-Type"] else None

    @property
    def master_pid(self) -> int:
        """Process id of the gunicorn master."""
        [master] = [pid for pid in _read_child_pids(self.process.pid) if b"gunicorn" in _read_command_line(pid)]
        return master

    def get_worker_pids(self) -> list[int]:
        """Process ids of the running gunicorn workers."""
        return _read_child_pids(self.master_pid)

    def find_answering_workers(self) -> set[int]:
        """Return the workers that answer on a few simultaneous connections."""
        connections = [open_connection(self.url, timeout=20) for _ in range(12)]
        try:
            for connection in connections:
                connection.request("GET", "/healthz")
            return {int(connection.getresponse().headers["X-Worker"]) for connection in connections}
        finally:
            for connection in connections:
                connection.close()

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.output.read_text()
        try:
            with urllib.request.urlopen(self.url + "/readyz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


@contextmanager
def run_system(folder: Path, *, redis_url: str | None = SECOND_REDIS_URL, **settings: str) -> Iterator[System]:
    """Run a system with the test users and a database of its own, on the server of DATABASE_URL if there is one."""
    with (
        temporary_database(DATABASE_URL) as url,
        System(folder, database_url=url, redis_url=redis_url, **settings) as it,
    ):
        yield it


def _read_child_pids(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _read_command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
