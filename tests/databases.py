"""The servers that tests run against, if the environment names any, and an empty database for whoever needs one."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import sqlalchemy

DATABASE_URL = os.environ.get("DATABASE_URL")
REDIS_URL = os.environ.get("REDIS_URL")


def second_database(redis_url: str | None) -> str | None:
    """Database 1 of that server, for systems of a test's own: 0 has who is online at the shared one. None without a server.

    Rings and signals are of the whole server; of two systems on it only one should be busy.
    """
    return redis_url and urlsplit(redis_url)._replace(query="db=1").geturl()


SECOND_REDIS_URL = second_database(REDIS_URL)


def is_shared(redis_url: str | None) -> bool:
    """Whether that Redis is the one of REDIS_URL, where others would see what somebody left behind."""
    return redis_url is not None and redis_url in (REDIS_URL, SECOND_REDIS_URL)


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
