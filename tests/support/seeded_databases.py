"""Migrated databases with the test users: built once per process by the project's commands, copied for every system."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import sqlalchemy
from sqlalchemy.exc import OperationalError

from broadcast.config.database_url import normalize_url
from broadcast.launcher.preflight import ensure_secret_key

PROJECT_ROOT = Path(__file__).resolve().parents[2]
UNINHERITED_VARIABLES = ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS")  # a system gets what its test sets
Tokens = dict[str, str]  # of the test users, by "username scope"


def copy_sqlite_template(folder: Path) -> Tokens:
    """Copy the SQLite file into that data folder; return the tokens of the test users."""
    database, tokens = _make_sqlite_template()
    folder.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(database, folder)
    return dict(tokens)


def create_from_template(url: str) -> Tokens | None:
    """Make that empty server database a copy; return the tokens of the test users, or None if it is not empty."""
    target_url = sqlalchemy.make_url(normalize_url(url))
    with sqlalchemy.create_engine(target_url, poolclass=sqlalchemy.NullPool).connect() as connection:
        if sqlalchemy.inspect(connection).get_table_names():
            return None
    template_name, tokens = _make_server_template(target_url.set(database="postgres"))
    with _connect_as_admin(target_url) as connection:
        connection.exec_driver_sql(f'DROP DATABASE "{target_url.database}" WITH (FORCE)')
        connection.exec_driver_sql(f'CREATE DATABASE "{target_url.database}" TEMPLATE "{template_name}"')
    return dict(tokens)


@cache
def _make_sqlite_template() -> tuple[Path, Tokens]:
    folder = Path(tempfile.mkdtemp(prefix="populated"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / "broadcast.sqlite3", _migrate_and_seed(folder, {})


@cache
def _make_server_template(server: sqlalchemy.URL) -> tuple[str, Tokens]:
    name = f"populated_{uuid.uuid4().hex[:12]}"
    with _connect_as_admin(server) as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    atexit.register(_drop_database, server, name)
    with tempfile.TemporaryDirectory() as folder:
        url = server.set(database=name).render_as_string(hide_password=False)
        return name, _migrate_and_seed(Path(folder), {"DATABASE_URL": url})


def _drop_database(server: sqlalchemy.URL, name: str) -> None:
    with suppress(OperationalError), _connect_as_admin(server) as connection:  # a server started by one test is gone
        connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')


def _connect_as_admin(server: sqlalchemy.URL) -> sqlalchemy.Connection:
    """Connect to that server to create and drop databases."""
    url = server.set(database="postgres")
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    return engine.connect()


def _migrate_and_seed(folder: Path, settings: Mapping[str, str]) -> Tokens:
    environ = {name: value for name, value in os.environ.items() if name not in UNINHERITED_VARIABLES}
    environ |= {"DATA_DIR": str(folder)} | settings
    ensure_secret_key(folder)
    for args in (("flask", "--app", "app", "db", "upgrade"), ("tests.support.seed_test_users",)):
        result = subprocess.run(
            [sys.executable, "-m", *args], cwd=PROJECT_ROOT, env=environ, capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)
