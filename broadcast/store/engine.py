"""The engine: its options, and how its connections begin, wait for locks, commit and are replaced.

SQLite waits for a lock inside C and would block every stream of the worker, so its own waiting is off
(`busy_timeout=0`) and the wait is a loop that lets the hub run. A write takes its lock at BEGIN, because a transaction
that first reads and then writes can fail halfway instead of waiting. Its COMMIT waits for the disk, so it runs in a
thread.
"""

import random
import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import gevent
from gevent.monkey import is_module_patched
from gevent.threadpool import ThreadPool
from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.exc import DisconnectionError

from broadcast.config.database_url import make_driver_arguments
from broadcast.config.settings import Settings
from broadcast.store.availability import is_on_wrong_server

_WRITE_OPTION = "broadcast_writes"
_THREAD_OPTION = "broadcast_long"
# Execution options: the transaction of this connection will write; run this statement in a thread on SQLite.
BEGIN_WRITE = {_WRITE_OPTION: True}
RUN_IN_THREAD = {_THREAD_OPTION: True}
_IDLE_SECONDS_BEFORE_PING = 1.0
_QUOTED_TEXT = re.compile(r"\"[^\"]*\"|'[^']*'", re.DOTALL)
_DATA_EXCEPTION_CLASS = "22"  # SQLSTATE class: data exceptions

_connection_count = 0  # by this process, for any engine


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
    _handle_errors(engine)
    if engine.dialect.name != "sqlite":
        _ping_idle_connections(engine)
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


def _handle_errors(engine: Engine) -> None:
    """Redact errors, and discard the whole pool when a server reports that it is read-only or shutting down.

    After a fail-over the old primary may go on answering as a standby, and nothing else would ever open a new
    connection.
    """

    @event.listens_for(engine, "handle_error")
    def _handle_error(context: ExceptionContext) -> None:
        problem, wrapped = context.original_exception, context.sqlalchemy_exception
        if is_on_wrong_server(problem):
            context.is_disconnect = True
        before = str(problem)
        redact_error(problem)
        after = str(problem)
        if wrapped is not None and before != after:
            wrapped.args = tuple(arg.replace(before, after) if isinstance(arg, str) else arg for arg in wrapped.args)


def redact_error(problem: BaseException) -> None:
    """Reduce a driver's error in place to its first line, without quoted values: users wrote them, and errors are logged.

    PostgreSQL includes values in its details ("Key (username)=(bob) already exists.") and in messages about a value that
    it cannot accept; SQLite includes search words. The kind of error and the constraint stay. PostgreSQL's connection
    errors have no SQLSTATE and contain no values; they stay complete.
    """
    state, is_sqlite = getattr(problem, "sqlstate", None), isinstance(problem, sqlite3.Error)
    if not (state or is_sqlite) or not problem.args or not isinstance(problem.args[0], str):
        return
    message = problem.args[0].partition("\n")[0]
    if is_sqlite or state.startswith(_DATA_EXCEPTION_CLASS):
        message = _QUOTED_TEXT.sub('"…"', message)
    problem.args = (f"{message} [{state}]" if state else message, *problem.args[1:])


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
