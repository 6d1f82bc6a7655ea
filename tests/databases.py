"""The servers that tests run against, if the environment names any, and an empty database for whoever needs one."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy

DATABASE_URL = os.environ.get("DATABASE_URL")
REDIS_URL = os.environ.get("REDIS_URL")


@contextmanager
def database_of_its_own(server: str | None) -> Iterator[str | None]:
    """An empty database on that server, dropped at the end; None (SQLite in the system's folder) without a server."""
    if not server:
        yield None
        return
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    try:
        yield sqlalchemy.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')
