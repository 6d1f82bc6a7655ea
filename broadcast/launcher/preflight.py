"""What a launcher secures before it starts anything: an exclusive lock on its data folder, a free port, a secret key.

And what the database already has, asked without importing the application: that takes a second, a query a millisecond.
If there is nothing to do, the process that would do it is not started.
"""

import errno
import fcntl
import os
import re
import secrets
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from broadcast.config.database_url import get_sqlite_path, make_driver_arguments
from broadcast.launcher.children import ROOT, LaunchFailed

_REVISION_LINE = re.compile(r"""^(revision|down_revision) = ["'](\w+)["']""", re.M)
_APPLIED_REVISIONS_SQL = "SELECT version_num FROM alembic_version"
_ADMINISTRATOR_SQL = "SELECT 1 FROM user_roles WHERE role_name = 'admin' LIMIT 1"
_TIMEOUT_SECONDS = 3


@contextmanager
def lock_data_dir(path: Path) -> Iterator[Path]:
    """Create the folder (0700), lock it for this launcher, and yield its absolute path.

    An existing folder keeps its mode: it may be shared on purpose, and its files are private anyway (`private_files`).
    The lock ends with the process, however that ends, so there is no stale lock to clean up.
    """
    folder = path.absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "launcher.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as problem:
        raise LaunchFailed(f"DATA_DIR {folder} cannot be used: {problem.strerror}.") from None
    try:
        _acquire_lock(descriptor, folder)
        yield folder
    finally:
        os.close(descriptor)


def _acquire_lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder_pid = os.pread(descriptor, 20, 0).decode().strip() or "unknown"
        raise LaunchFailed(
            f"Another launcher (pid {holder_pid}) already runs on {folder}. Stop it, or choose another DATA_DIR and PORT."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def check_port_is_free(host: str, port: int) -> None:
    """Raise LaunchFailed unless gunicorn will be able to listen there. Gunicorn would find out too, but only after
    Redis, the migration and the demo data, and with a traceback for each of five tries.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does: TIME_WAIT is no obstacle
            probe.bind(address)
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            raise LaunchFailed(f"Port {port} on {host} is in use by another program. Choose another PORT.") from None
        raise LaunchFailed(f"Cannot listen on {host} port {port}: {problem.strerror}. Check HOST and PORT.") from None


def ensure_secret_key(folder: Path) -> Path:
    """Create `folder`/secret_key (0600, 256 bits in hexadecimal) unless it exists, and return its path.

    Written to a temporary file and renamed: a launcher killed in between leaves no partial key.
    """
    path = folder / "secret_key"
    if path.exists():
        return path
    temporary_path = folder / "secret_key.new"
    temporary_path.unlink(missing_ok=True)
    descriptor = os.open(temporary_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(file.fileno())
    temporary_path.rename(path)
    return path


def is_migrated(database_uri: str, *, versions: Path = ROOT / "migrations" / "versions") -> bool:
    """Whether the database is at the newest migration of this version. False if anything cannot be read."""
    try:
        return {name for (name,) in _query(database_uri, _APPLIED_REVISIONS_SQL)} == _find_head_revisions(versions)
    except Exception:  # no database yet, or it is down: the migration command reports the cause
        return False


def has_administrator(database_uri: str) -> bool:
    """Whether there is or was an administrator, as in `store.users`. False if anything cannot be read."""
    try:
        return bool(_query(database_uri, _ADMINISTRATOR_SQL))
    except Exception:  # the setup-code command reports the cause
        return False


def _find_head_revisions(versions: Path) -> set[str]:
    revision_lines = [names for path in versions.glob("*.py") for names in _REVISION_LINE.findall(path.read_text())]
    superseded = {name for kind, name in revision_lines if kind == "down_revision"}
    return {name for kind, name in revision_lines if kind == "revision"} - superseded


def _query(database_uri: str, sql: str) -> list[tuple]:
    if database_uri.startswith("sqlite"):
        path = quote(str(get_sqlite_path(database_uri)))
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()
    import psycopg  # late: only needed for PostgreSQL

    # bounded, as stop signals are not handled meanwhile
    arguments = make_driver_arguments(database_uri)
    options = f"{arguments.pop('options', '')} -c statement_timeout={1000 * _TIMEOUT_SECONDS}"
    timeouts = {"connect_timeout": _TIMEOUT_SECONDS, "tcp_user_timeout": 1000 * _TIMEOUT_SECONDS, "options": options}
    with psycopg.connect(**arguments | timeouts) as connection:
        return connection.execute(sql).fetchall()
