"""The servers that the environment names for tests, if any, and temporary databases."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import sqlalchemy

from tests.support.ports import WORKER_INDEX

DATABASE_URL = os.environ.get("DATABASE_URL")


def _redis_database_url(number: int) -> str | None:
    """Return the URL of a database on the REDIS_URL server, counted from the one named there; None without a server."""
    if not (redis_url := os.environ.get("REDIS_URL")):
        return None
    base_number = urlsplit(redis_url).path[1:]
    return (
        urlsplit(redis_url)
        ._replace(query=f"db={number + int(base_number) if base_number.isdigit() else number}")
        .geturl()
    )


# Two for each process: the first has the presence of its shared system, the second is for systems of a single test.
REDIS_URL = _redis_database_url(2 * WORKER_INDEX)
SECOND_REDIS_URL = _redis_database_url(2 * WORKER_INDEX + 1)


def is_shared_redis(redis_url: str | None) -> bool:
    """Whether that Redis is the one of REDIS_URL, where other tests would see leftover keys."""
    return redis_url is not None and redis_url in (REDIS_URL, SECOND_REDIS_URL)


@contextmanager
def temporary_database(server_url: str | None) -> Iterator[str | None]:
    """Yield the URL of an empty database on that server, dropped at the end; without one None (SQLite is used)."""
    if not server_url:
        yield None
        return
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(server_url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    try:
        yield sqlalchemy.make_url(server_url).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')
