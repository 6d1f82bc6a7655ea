"""The connection pool: which connections are in a transaction, and which are checked before use."""

import sqlite3
import threading

import gevent
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import PoolProxiedConnection, event, func, select, text

from broadcast.actions import users
from broadcast.base.errors import CommitOutcomeUnknown, TemporarilyUnavailable
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import engine
from broadcast.store.database import db
from broadcast.store.engine import ThreadedCommitConnection
from broadcast.store.transactions import raw_read_connection, write_transaction
from tests.support.databases import DATABASE_URL


def is_in_transaction(connection: PoolProxiedConnection) -> bool:
    driver = connection.driver_connection
    if isinstance(driver, psycopg.Connection):
        return driver.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
    return driver.in_transaction


def end_backend(pid: int) -> None:
    """Have the server end one of our connections."""
    with sqlalchemy.create_engine(DATABASE_URL, poolclass=sqlalchemy.NullPool).connect() as other:
        other.execute(select(func.pg_terminate_backend(pid, 5000)))


def ask(connection: PoolProxiedConnection, question: str) -> object:
    return connection.cursor().execute(question).fetchone()[0]


@pytest.mark.usefixtures("cast")
def test_one_question_is_in_no_transaction_and_the_next_user_of_its_connection_is():
    with raw_read_connection() as connection:
        ask(connection, "SELECT count(*) FROM users")
        assert not is_in_transaction(connection)
    with db.engine.connect() as connection:
        connection.execute(text("UPDATE users SET name = 'Nobody'"))
        assert is_in_transaction(connection.connection)
    with raw_read_connection() as connection:
        assert ask(connection, "SELECT count(*) FROM users WHERE name = 'Nobody'") == 0


@pytest.mark.skipif(not DATABASE_URL, reason="a file has no connections that die")
@pytest.mark.usefixtures("in_app")
def test_connection_that_died_while_it_rested_is_replaced_unseen(monkeypatch):
    monkeypatch.setattr(engine, "_IDLE_SECONDS_BEFORE_PING", 0.0)
    with raw_read_connection() as connection:
        died = ask(connection, "SELECT pg_backend_pid()")
    end_backend(died)
    with raw_read_connection() as connection:
        assert ask(connection, "SELECT pg_backend_pid()") != died


@pytest.mark.skipif(not DATABASE_URL, reason="a file has no connections that die")
@pytest.mark.usefixtures("in_app")
def test_session_whose_connection_died_is_closed_without_a_word():
    """Flask closes it after the answer was made, which must not become a 500."""
    died = db.session.scalar(select(func.pg_backend_pid()))
    end_backend(died)
    db.session.remove()
    assert db.engine.pool.checkedout() == 0
    assert db.session.scalar(select(func.pg_backend_pid())) != died


@pytest.mark.skipif(not DATABASE_URL, reason="a file is not lost")
@pytest.mark.usefixtures("in_app")
@pytest.mark.parametrize(
    ("when", "told"), [("before_cursor_execute", TemporarilyUnavailable), ("commit", CommitOutcomeUnknown)]
)
def test_server_that_is_lost_while_it_commits_leaves_us_unsure_and_before_that_nothing_was_written(when, told):
    def end(connection, *_):
        end_backend(connection.connection.driver_connection.info.backend_pid)

    event.listen(db.engine, when, end, once=True)
    with pytest.raises(TemporarilyUnavailable) as raised, write_transaction() as session:
        session.execute(text("UPDATE log_head SET seq = seq"))
    assert raised.type is told


@pytest.mark.skipif(not DATABASE_URL, reason="a file has one lock for all")
def test_lock_waited_for_in_vain_within_the_commit_is_busy(make_app):
    """The audit's, which is taken last of all; the server is there, so nothing was written."""
    with make_app(database_lock_timeout_seconds=0.2).app_context(), db.engine.connect() as other:
        other.exec_driver_sql("SELECT * FROM audit_head FOR UPDATE")
        with pytest.raises(TemporarilyUnavailable) as raised:
            users.create_user("dana", None, by=SYSTEM, now=clock.now())
        other.rollback()
    assert raised.type is TemporarilyUnavailable


@pytest.mark.parametrize("in_a_worker", [True, False])
def test_commit_waits_for_the_disk_in_a_thread_of_a_worker_and_nowhere_else(in_a_worker, monkeypatch):
    monkeypatch.setattr(engine, "is_module_patched", lambda name: in_a_worker)
    connection = sqlite3.connect(
        ":memory:", check_same_thread=False, isolation_level=None, factory=ThreadedCommitConnection
    )
    committed_by = []
    connection.set_trace_callback(lambda sql: sql == "COMMIT" and committed_by.append(threading.get_ident()))
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE t (n)")
    connection.commit()
    assert not connection.in_transaction
    assert [thread == threading.get_ident() for thread in committed_by] == [not in_a_worker]


def test_who_is_killed_while_the_thread_works_ends_only_after_it(monkeypatch):
    monkeypatch.setattr(engine, "is_module_patched", lambda name: True)
    may_end, done = threading.Event(), []
    doing = gevent.spawn(engine._run_in_thread, lambda: done.append(may_end.wait(10)))
    gevent.idle()
    doing.kill(block=False)
    gevent.idle()
    assert not doing.dead
    may_end.set()
    doing.join(10)
    assert doing.dead
    assert done == [True]


def test_what_goes_wrong_in_the_thread_is_raised_and_not_printed(monkeypatch, capfd):
    monkeypatch.setattr(engine, "is_module_patched", lambda name: True)
    with pytest.raises(ZeroDivisionError):
        engine._run_in_thread(lambda: 1 // 0)
    assert capfd.readouterr().err == ""
