"""Database checks at start, without importing the application: that takes a second, a query a millisecond.

If there is nothing to do, the process that would do it is not started.
"""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from broadcast.config.database_url import get_sqlite_path, make_driver_arguments
from broadcast.launcher.children import ROOT

_REVISION_LINE = re.compile(r"""^(revision|down_revision) = ["'](\w+)["']""", re.M)
_APPLIED_REVISIONS_SQL = "SELECT version_num FROM alembic_version"
_ADMINISTRATOR_SQL = "SELECT 1 FROM user_roles WHERE role_name = 'admin' LIMIT 1"
_TIMEOUT_SECONDS = 3


def is_migrated(database_uri: str, *, versions: Path = ROOT / "migrations" / "versions") -> bool:
    """Whether the database is at the newest migration of this version. False if anything cannot be read."""
    try:
        return {name for (name,) in _query(database_uri, _APPLIED_REVISIONS_SQL)} == _find_head_revisions(versions)
    except Exception:  # no database yet, or it is down: the migration command reports the cause
        return False


def has_administrator(database_uri: str) -> bool:
    """Whether there is or was an administrator, as in `store.models.setup`. False if anything cannot be read."""
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
