"""What a start asks the database, without the application: importing that takes a second, the answer a millisecond.

Where there is nothing to do, the process that would do it is spared.
"""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from broadcast.config.database_url import driver_arguments, sqlite_path
from broadcast.launcher.children import ROOT

_NEWEST = re.compile(r"""^(revision|down_revision) = ["'](\w+)["']""", re.M)
_APPLIED = "SELECT version_num FROM alembic_version"
_ADMINISTRATOR = "SELECT 1 FROM user_roles WHERE role_name = 'admin' LIMIT 1"
_PATIENCE_SECONDS = 3


def is_migrated(database_uri: str, *, versions: Path = ROOT / "migrations" / "versions") -> bool:
    """Say whether the newest migration of this version is the one the database has. False for whatever cannot be read."""
    try:
        return {name for (name,) in _ask(database_uri, _APPLIED)} == _newest(versions)
    except Exception:  # no database yet, or one that does not answer: the command that migrates says what is wrong
        return False


def has_administrator(database_uri: str) -> bool:
    """Say whether anybody is or was one, as `store.first_run` does. False for whatever cannot be read."""
    try:
        return bool(_ask(database_uri, _ADMINISTRATOR))
    except Exception:  # the command that makes the code says what is wrong
        return False


def _newest(versions: Path) -> set[str]:
    found = [names for path in versions.glob("*.py") for names in _NEWEST.findall(path.read_text())]
    earlier = {name for kind, name in found if kind == "down_revision"}
    return {name for kind, name in found if kind == "revision"} - earlier


def _ask(database_uri: str, question: str) -> list[tuple]:
    if database_uri.startswith("sqlite"):
        path = quote(str(sqlite_path(database_uri)))
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute(question).fetchall()
    import psycopg  # late: only where it is the database

    # bounded, as a signal to stop is not heard meanwhile
    given = driver_arguments(database_uri)
    options = f"{given.pop('options', '')} -c statement_timeout={1000 * _PATIENCE_SECONDS}"
    bounds = {"connect_timeout": _PATIENCE_SECONDS, "tcp_user_timeout": 1000 * _PATIENCE_SECONDS, "options": options}
    with psycopg.connect(**given | bounds) as connection:
        return connection.execute(question).fetchall()
