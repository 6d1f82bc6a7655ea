"""Databases that are migrated and know the cast: made once in a process by the program's own commands, then copied for
every system.
"""

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

from broadcast.config.database_url import normalize
from broadcast.launcher.secret import ensure_secret_key

TOP = Path(__file__).resolve().parent.parent
OF_THE_TESTS = ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS")  # a system has what its test says
Tokens = dict[str, str]  # of the cast, by "username scope"


def put_file(folder: Path) -> Tokens:
    """Copy the SQLite file into that data folder, and return the tokens of the cast."""
    database, tokens = _file()
    folder.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(database, folder)
    return dict(tokens)


def fill_database(url: str) -> Tokens | None:
    """Make that empty database of a server a copy, and return the tokens of the cast; None when it is not empty."""
    target = sqlalchemy.make_url(normalize(url))
    with sqlalchemy.create_engine(target, poolclass=sqlalchemy.NullPool).connect() as connection:
        if sqlalchemy.inspect(connection).get_table_names():
            return None
    template, tokens = _template(target.set(database="postgres"))
    with _commanding(target) as connection:
        connection.exec_driver_sql(f'DROP DATABASE "{target.database}" WITH (FORCE)')
        connection.exec_driver_sql(f'CREATE DATABASE "{target.database}" TEMPLATE "{template}"')
    return dict(tokens)


@cache
def _file() -> tuple[Path, Tokens]:
    folder = Path(tempfile.mkdtemp(prefix="populated"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / "broadcast.sqlite3", _populate(folder, {})


@cache
def _template(server: sqlalchemy.URL) -> tuple[str, Tokens]:
    name = f"populated_{uuid.uuid4().hex[:12]}"
    with _commanding(server) as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    atexit.register(_drop, server, name)
    with tempfile.TemporaryDirectory() as folder:
        url = server.set(database=name).render_as_string(hide_password=False)
        return name, _populate(Path(folder), {"DATABASE_URL": url})


def _drop(server: sqlalchemy.URL, name: str) -> None:
    with suppress(OperationalError), _commanding(server) as connection:  # a server of a test's own is gone
        connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')


def _commanding(server: sqlalchemy.URL) -> sqlalchemy.Connection:
    """Connected to that server, to make and drop databases."""
    url = server.set(database="postgres")
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    return engine.connect()


def _populate(folder: Path, settings: Mapping[str, str]) -> Tokens:
    environ = {name: value for name, value in os.environ.items() if name not in OF_THE_TESTS}
    environ |= {"DATA_DIR": str(folder)} | settings
    ensure_secret_key(folder)
    for words in (("flask", "--app", "app", "db", "upgrade"), ("tests.populate",)):
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=TOP, env=environ, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
