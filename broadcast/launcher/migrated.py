"""Whether the database is up to date already: then a start is spared the process that would look, two seconds of it imports."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from broadcast.launcher.children import ROOT

_NEWEST = re.compile(r"""^(revision|down_revision) = ["'](\w+)["']""", re.M)
_APPLIED = "SELECT version_num FROM alembic_version"
_PATIENCE_SECONDS = 3


def is_migrated(database_uri: str, *, versions: Path = ROOT / "migrations" / "versions") -> bool:
    """Say whether the newest migration of this version is the one the database has. False for whatever cannot be read.

    Asks without the application and its packages, which take longer than the answer.
    """
    try:
        return set(_applied(database_uri)) == _newest(versions)
    except Exception:  # no database yet, or one that does not answer: the command that migrates says what is wrong
        return False


def _newest(versions: Path) -> set[str]:
    found = [names for path in versions.glob("*.py") for names in _NEWEST.findall(path.read_text())]
    earlier = {name for kind, name in found if kind == "down_revision"}
    return {name for kind, name in found if kind == "revision"} - earlier


def _applied(database_uri: str) -> Iterator[str]:
    if database_uri.startswith("sqlite"):
        path = database_uri.partition(":///")[2]
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return (name for (name,) in connection.execute(_APPLIED).fetchall())
    import psycopg  # late: only where it is the database

    with psycopg.connect(
        re.sub(r"^\w+(\+\w+)?:", "postgresql:", database_uri), connect_timeout=_PATIENCE_SECONDS
    ) as connection:
        return (name for (name,) in connection.execute(_APPLIED).fetchall())
