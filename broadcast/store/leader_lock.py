"""Which worker does a job that only one should do. The lock is released when its process ends, however it ends.

On PostgreSQL it is a server lock that lives as long as its connection, across all machines; with SQLite there is one
machine, and a kernel file lock does it. Nothing is renewed and nothing expires, so a successor need not wait for a
timeout: it sees the lock free as soon as the holder is gone.
"""

import fcntl
import os
import zlib
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

# So that the server notices a machine that died silently: after 5 + 3 × 1 seconds.
_KEEPALIVE_SQL = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 3"


class LeaderLock(Protocol):
    """Held by at most one process at a time. For use by one greenlet; `try_acquire` never waits."""

    def try_acquire(self) -> bool:
        """Acquire the lock, or check that it is still held. True while this process has it."""
        ...

    def release(self) -> None:
        """Release the lock; does nothing when it is not held."""
        ...


def create_leader_lock(engine: Engine, name: str, *, folder: Path) -> LeaderLock:
    """The leader lock of this name; `folder` is for the file with SQLite."""
    if engine.dialect.name == "sqlite":
        return FileLeaderLock(folder / f"{name}.lock")
    return AdvisoryLeaderLock(engine, name)


class FileLeaderLock:
    def __init__(self, path: Path):
        self._path = path
        self._file: int | None = None

    def try_acquire(self) -> bool:
        if self._file is not None:
            return True
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._file = descriptor
        return True

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class AdvisoryLeaderLock:
    """Needs its own connection: a pooler that shares connections between transactions would lose the lock."""

    def __init__(self, engine: Engine, name: str):
        self._engine, self._key = engine, zlib.crc32(name.encode())
        self._connection: Connection | None = None

    def try_acquire(self) -> bool:
        if self._connection is not None:
            return self._is_connection_alive()
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            if connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key}):
                connection.exec_driver_sql(_KEEPALIVE_SQL)
                self._connection = connection
        finally:
            if self._connection is None:
                connection.close()
        return self._connection is not None

    def release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()  # closes it, and with it the lock
            connection.close()

    def _is_connection_alive(self) -> bool:
        try:
            self._connection.exec_driver_sql("SELECT 1")
        except SQLAlchemyError:
            self.release()
            return False
        return True
