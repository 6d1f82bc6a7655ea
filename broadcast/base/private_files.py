"""Makes the program's files private to its own user: database, keys, locks and logs hold everybody's messages.

The data folder may be shared on purpose, so each file is private: new ones by the umask, those of an older version by a
change of mode. Standard library only: the launcher imports it first.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

UMASK = 0o077
# in DATA_DIR, which may hold other programs' files too
_PRIVATE_FILE_PATTERNS = ("*.sqlite3", "*.sqlite3-*", "secret_key*", "vapid_key*", "*.lock", "*.log", "metrics/*")


def restrict_permissions(data_dir: Path, database: Path | None = None) -> None:
    """Make every file that this process creates private from now on, and fix the existing ones."""
    os.umask(UMASK)
    files = [path for pattern in _PRIVATE_FILE_PATTERNS for path in data_dir.glob(pattern)]
    if database is not None:
        files += [database, *(database.with_name(database.name + suffix) for suffix in ("-wal", "-shm", "-journal"))]
    _restrict_files(files)


def _restrict_files(files: Iterable[Path]) -> None:
    for path in files:
        with suppress(OSError):  # missing, or owned by another user
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                status = os.fstat(descriptor)
                if stat.S_ISREG(status.st_mode) and status.st_mode & UMASK:
                    os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~UMASK)
            finally:
                os.close(descriptor)
