"""The engine, and the two ways to use it: read with `db.session`, write inside `write_transaction()`.

SQLite waits for a lock inside C and would block every stream of the worker, so its own waiting is off
(`busy_timeout=0`) and the wait is a loop that lets the hub run. A write takes its lock at BEGIN, because a transaction
that first reads and then writes can fail halfway instead of waiting. Its COMMIT waits for the disk, so it runs in a
thread.
"""

import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

import gevent
from flask import g
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session as FlaskSession
from gevent.lock import BoundedSemaphore
from gevent.monkey import is_module_patched
from gevent.threadpool import ThreadPool
from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Engine,
    ExceptionContext,
    Integer,
    MetaData,
    PoolProxiedConnection,
    TypeDecorator,
    event,
    func,
    select,
)
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session, registry

from broadcast.base.errors import CommitOutcomeUnknown, TemporarilyUnavailable
from broadcast.config.database_url import make_driver_arguments
from broadcast.config.settings import SETTINGS, Settings
from broadcast.store import error_text
from broadcast.store.availability import is_driver_unavailable, is_on_wrong_server, is_unavailable


class UtcDateTime(TypeDecorator):
    """An aware UTC time. SQLite does not store the zone, so it is added on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise TypeError("a time without a zone cannot be stored")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


class Base(DeclarativeBase):
    """Constraints have names, so that a migration can change them on both databases."""

    registry = registry(
        metadata=MetaData(
            naming_convention={
                "ix": "ix_%(table_name)s_%(column_0_N_name)s",
                "uq": "uq_%(table_name)s_%(column_0_N_name)s",
                "ck": "ck_%(table_name)s_%(constraint_name)s",
                "fk": "fk_%(table_name)s_%(column_0_name)s",
                "pk": "pk_%(table_name)s",
            }
        ),
        # SQLite assigns row ids only for INTEGER; PostgreSQL would run out of 32 bits
        type_annotation_map={int: BigInteger().with_variant(Integer, "sqlite"), datetime: UtcDateTime},
    )


class DisconnectSafeSession(FlaskSession):
    """Also closes when the database is lost: the response is complete by then and would become a 500."""

    def close(self) -> None:
        try:
            super().close()
        except DBAPIError as problem:
            if not problem.connection_invalidated:
                raise
            self.invalidate()  # nothing to roll back, and no connection for the pool


db = SQLAlchemy(model_class=Base, session_options={"class_": DisconnectSafeSession})
migrate = Migrate(db=db, directory="migrations", render_as_batch=True, compare_type=True)

# How to lock a row that will change, for `with_for_update`: others may still reference it. The full lock would wait for
# every receipt being written that references the row, and its writer could wait for us: a deadlock.
ROW_LOCK = {"key_share": True}

_connection_count = 0  # by this process, for any engine

_WRITE_OPTION = "broadcast_writes"  # execution option: this transaction will write
_THREAD_OPTION = "broadcast_long"  # execution option: run this statement of a write transaction in a thread on SQLite
RUN_IN_THREAD = {_THREAD_OPTION: True}
_IDLE_SECONDS_BEFORE_PING = 1.0
# one SQLite writer per worker at a time: queueing here is fair, spinning on the file lock is not
_writer_lock = BoundedSemaphore(1)


class ThreadedCommitConnection(sqlite3.Connection):
    """A connection whose commit lets the other greenlets of a worker run until the disk has it.

    COMMIT takes 2 ms on a good disk and 30 on a busy one. Only one greenlet commits at a time, so one thread serves
    all; it is not the hub's own pool, where sign-ins may keep every thread busy.
    """

    def commit(self) -> None:
        _run_in_thread(super().commit)


def _run_in_thread(function: Callable[..., Any], *arguments: Any) -> None:
    """Run the blocking part of a write transaction. Lets other greenlets run in a worker; a command or a test has none.

    A greenlet killed meanwhile ends only after the work: otherwise the connection would be closed during it.
    """
    if not is_module_patched("socket"):
        function(*arguments)
        return
    result = _get_thread_pool().spawn(_capture_error, function, arguments)
    try:
        error = result.get()
    finally:
        result.wait()
    if error is not None:
        raise error


def _capture_error(function: Callable[..., Any], arguments: Sequence[Any]) -> Exception | None:
    """Return the exception instead of raising it: gevent also prints what is raised in a thread."""
    try:
        function(*arguments)
    except Exception as problem:
        return problem
    return None


@cache
def _get_thread_pool() -> ThreadPool:
    """Created at the first commit, which is after the fork of the worker."""
    return ThreadPool(1)


def build_engine_options(settings: Settings) -> dict[str, Any]:
    """Options of `create_engine` for the database of `settings`."""
    if settings.database_uri.startswith("sqlite"):
        connect_args = {"timeout": 0, "check_same_thread": False, "factory": ThreadedCommitConnection}
        return {"connect_args": connect_args, "pool_size": settings.database_pool_size, "hide_parameters": True}
    lock_timeout_ms = int(settings.database_lock_timeout_seconds * 1000)
    user_arguments = make_driver_arguments(settings.database_uri)
    # no JIT: the inbox query, of many small parts, took 12 ms to run and 130 to be compiled
    server_options = f"-c lock_timeout={lock_timeout_ms} -c idle_in_transaction_session_timeout=60000 -c jit=off"
    return {
        "hide_parameters": True,  # keep user content out of the logs
        "pool_size": settings.database_pool_size,
        "max_overflow": settings.database_pool_size,
        "pool_timeout": settings.database_lock_timeout_seconds,
        "pool_recycle": 1800,
        # options in DATABASE_URL are kept and take precedence
        "connect_args": {
            "client_encoding": "UTF8",  # a SQL_ASCII database would answer in bytes, even for its encoding
            "connect_timeout": int(user_arguments.get("connect_timeout", 3)),
            "options": f"{server_options} {user_arguments.get('options', '')}".strip(),
        },
    }


def prepare_engine(engine: Engine, *, lock_timeout_seconds: float) -> None:
    """Set up pragmas and explicit BEGIN on SQLite; on PostgreSQL ping idle connections and leave a demoted primary."""
    event.listen(engine, "connect", _count_connection)
    error_text.redact_engine_errors(engine)
    if engine.dialect.name != "sqlite":
        _ping_idle_connections(engine)
        _discard_pool_on_wrong_server(engine)
        return

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late; ours is below
        # FULL: a committed broadcast survives a power cut, not only a crash of the program
        for pragma in ("busy_timeout=0", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            _retry_while_locked(lambda pragma=pragma: connection.execute(f"PRAGMA {pragma}"), lock_timeout_seconds)

    @event.listens_for(engine, "begin")
    def _begin_transaction(connection: Any) -> None:
        statement = "BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITE_OPTION) else "BEGIN"
        _retry_while_locked(lambda: connection.exec_driver_sql(statement), lock_timeout_seconds)

    @event.listens_for(engine, "do_execute")
    def _execute_in_thread(cursor: sqlite3.Cursor, statement: str, parameters: Any, context: Any) -> bool:
        should_run_in_thread = context.execution_options.get(_THREAD_OPTION, False)
        if should_run_in_thread:
            _run_in_thread(cursor.execute, statement, parameters)
        return should_run_in_thread  # True: handled


def _count_connection(_connection: Any, _record: Any) -> None:
    global _connection_count
    _connection_count += 1


def count_connections_made() -> int:
    """How many connections this process has made: if the number grew, the server may be a different one."""
    return _connection_count


def _ping_idle_connections(engine: Engine) -> None:
    """Ping a connection only if it was idle for a while: `pool_pre_ping` pings before every use, which is a round trip
    for each of the thousands of queries in a reconnect storm.
    """

    @event.listens_for(engine, "checkin")
    def _note_use(_connection: Any, record: Any) -> None:
        record.info["used_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _ping_if_idle(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("used_at", time.monotonic()) < _IDLE_SECONDS_BEFORE_PING:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as problem:
            raise DisconnectionError from problem  # the pool replaces it and retries


def _discard_pool_on_wrong_server(engine: Engine) -> None:
    """Discard the whole pool when a server reports that it is read-only or shutting down.

    After a fail-over the old primary may go on answering as a standby, and nothing else would ever open a new
    connection.
    """

    @event.listens_for(engine, "handle_error")
    def _mark_disconnected(context: ExceptionContext) -> None:
        if is_on_wrong_server(context.original_exception):
            context.is_disconnect = True


def _retry_while_locked(attempt: Callable[[], Any], timeout_seconds: float) -> None:
    """Call `attempt` until SQLite is not locked; after `timeout_seconds` raise its error. Lets other greenlets run."""
    deadline, pause_seconds = time.monotonic() + timeout_seconds, 0.001
    while True:
        try:
            attempt()
            return
        except Exception as problem:
            if "locked" not in str(problem) or time.monotonic() > deadline:
                raise
        gevent.sleep(pause_seconds * random.uniform(0.5, 1))
        pause_seconds = min(pause_seconds * 1.5, 0.02)


@contextmanager
def raw_read_connection() -> Iterator[PoolProxiedConnection]:
    """The driver's connection, for a single SELECT, outside a transaction.

    A single statement is consistent in any case, and BEGIN and ROLLBACK around it would take as long as the query, on
    PostgreSQL two more round trips.

    Raises TemporarilyUnavailable when the database is locked or down, whether the driver or the pool reports it.
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
            error_text.redact_error(problem)
        raise
    finally:
        if connection is not None:
            if has_implicit_begin and connection.is_valid:
                connection.dbapi_connection.autocommit = False
            connection.close()


def get_current_time() -> datetime:
    """The time of the clock that all workers share: the database server's, or this machine's for SQLite."""
    if db.engine.dialect.name == "sqlite":
        return datetime.now(UTC)
    return db.session.scalar(select(func.clock_timestamp())).astimezone(UTC)


def get_pool_usage() -> tuple[int, int]:
    """Connections of this worker's pool: (in use, idle)."""
    pool = db.engine.pool
    return pool.checkedout(), pool.checkedin()


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
        session.connection(execution_options={_WRITE_OPTION: True})
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
