"""What a launcher secures before it starts anything: an exclusive lock on its data folder, a free port, a secret key."""

import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broadcast.launcher.errors import LaunchFailed


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
    """Create `folder`/secret_key (0600, 64 hexadecimal characters, 256 bits) unless it exists; return its path. It signs
    cookies, and a restart must sign nobody out.

    Written to a temporary file and renamed: a launcher killed in between leaves no partial key that breaks later
    starts.
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
