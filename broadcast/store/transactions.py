"""The one way to write, and the driver's connection for a single read."""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import g
from gevent.lock import BoundedSemaphore
from sqlalchemy import PoolProxiedConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from broadcast.base.errors import CommitOutcomeUnknown, TemporarilyUnavailable
from broadcast.config.settings import SETTINGS
from broadcast.store.availability import is_driver_unavailable, is_unavailable
from broadcast.store.database import db
from broadcast.store.engine import BEGIN_WRITE, redact_error

# one SQLite writer per worker at a time: queueing here is fair, spinning on the file lock is not
_writer_lock = BoundedSemaphore(1)


@contextmanager
def raw_read_connection() -> Iterator[PoolProxiedConnection]:
    """The driver's connection, for a single SELECT, outside a transaction.

    A single statement is consistent in any case, and BEGIN and ROLLBACK around it would take as long as the query, on
    PostgreSQL two more round trips. Raises TemporarilyUnavailable when the database is locked or down, whether the
    driver or the pool reports it.
    """
    engine, connection = db.engine, None
    has_implicit_begin = engine.dialect.name != "sqlite"  # SQLite has an explicit BEGIN
    try:
        connection = engine.raw_connection()
        if has_implicit_begin:
            connection.dbapi_connection.autocommit = True
        yield connection
    except Exception as problem:
        if is_driver_unavailable(problem):
            if connection is not None:
                connection.invalidate(problem)
            raise TemporarilyUnavailable from problem
        if isinstance(problem, engine.dialect.loaded_dbapi.Error):
            redact_error(problem)
        raise
    finally:
        if connection is not None:
            if has_implicit_begin and connection.is_valid:
                connection.dbapi_connection.autocommit = False
            connection.close()


@contextmanager
def write_transaction() -> Iterator[Session]:
    """One write transaction: commits at the end of the block, rolls back when it raises.

    Raises TemporarilyUnavailable when the database is locked or down; then nothing was written. Raises
    CommitOutcomeUnknown when a server is lost during the commit; then nobody knows. Objects loaded before the block are
    reloaded inside it. Not reentrant: an action that calls another passes it the session.
    """
    session, disconnect_error = db.session(), TemporarilyUnavailable
    session.rollback()  # ends the request's read transaction: SQLite cannot upgrade it to a write
    is_sqlite = db.engine.dialect.name == "sqlite"
    if is_sqlite and not _writer_lock.acquire(timeout=SETTINGS.current.database_lock_timeout_seconds):
        raise TemporarilyUnavailable
    try:
        session.connection(execution_options=BEGIN_WRITE)
        yield session
        session.flush()
        disconnect_error = TemporarilyUnavailable if is_sqlite else CommitOutcomeUnknown
        session.commit()
        g.has_written = True  # if the request fails later, "nothing was saved" would be wrong
    except (DBAPIError, PoolTimeout) as problem:
        session.rollback()
        if not is_unavailable(problem):
            raise
        is_disconnected = isinstance(problem, DBAPIError) and problem.connection_invalidated
        raise (disconnect_error if is_disconnected else TemporarilyUnavailable) from problem
    except BaseException:
        session.rollback()
        raise
    finally:
        if is_sqlite:
            _writer_lock.release()
