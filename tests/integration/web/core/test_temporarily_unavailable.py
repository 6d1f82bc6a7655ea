"""A locked database: 503 with Retry-After, no partial writes, and reads go on."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flask import Flask
from sqlalchemy.exc import TimeoutError as PoolTimeout

from broadcast.actions import notify, users
from broadcast.base.errors import TemporarilyUnavailable
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import inbox
from broadcast.store.database import db
from broadcast.store.fast.prepared_query import PreparedQuery
from tests.conftest import deliver_new_events
from tests.support.builders import build_message, count_rows, load_actor, publish_message
from tests.support.stream_reader import StreamReader

PASSWORD = "correct horse battery"


@pytest.fixture
def app(make_app) -> Flask:
    return make_app(database_lock_timeout_seconds=0.2)


@contextmanager
def locked(app: Flask) -> Iterator[None]:
    """Another program holds what every write needs."""
    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            connection = sqlite3.connect(db.engine.url.database, isolation_level=None, timeout=5)
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")
            connection.close()
            return
        held, let_go = threading.Event(), threading.Event()

        def hold() -> None:
            with app.app_context(), db.engine.connect() as connection:
                for table in ("log_head", "users", "broadcasts", "receipts", "sessions"):
                    connection.exec_driver_sql(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
                held.set()
                let_go.wait(20)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(10)
        try:
            yield
        finally:
            let_go.set()
            holder.join(10)


@pytest.fixture
def live(app, client) -> int:
    client()
    with app.app_context():
        users.create_user("dana", PASSWORD, by=SYSTEM, now=clock.now())
        return publish_message(load_actor("alice"))


def test_locked_database_is_503_with_retry_after_and_nothing_is_half_written(app, client, live):
    """F09"""
    alice, bob, nobody = client("alice"), client("bob"), client()
    for person in (alice, bob):
        person.get("/inbox")
    nobody.get("/login")
    with app.app_context():
        before = count_rows()
    with locked(app):
        form = {"title": "T", "content": "C", "targetType": "ALL"}
        for answer in (
            alice.send("POST", "/api/admin/broadcasts", build_message(), headers={"Idempotency-Key": "k"}),
            alice.send("DELETE", f"/api/admin/broadcasts/{live}"),
            bob.send("POST", f"/api/sse/read?messageId={live}"),
            bob.send("POST", "/api/user/messages/read-all"),
            alice.post("/console/broadcasts", form),
            alice.post(f"/console/broadcasts/{live}/cancel", {"reason": "x"}),
            bob.post(f"/inbox/{live}/read"),
            nobody.post("/login", {"username": "dana", "password": PASSWORD}),
        ):
            assert answer.status_code == 503, answer.request.path
            assert int(answer.headers["Retry-After"]) >= 1
            is_api = answer.request.path.startswith("/api/")
            assert answer.mimetype == ("application/problem+json" if is_api else "text/html")
    with app.app_context():
        assert count_rows() == before
    assert (
        alice.send("POST", "/api/admin/broadcasts", build_message(), headers={"Idempotency-Key": "k"}).status_code
        == 201
    )


def test_locked_database_still_shows_what_there_is(app, client, live):
    """F09: reading goes on, a stream opens, readiness holds."""
    alice = client("alice")
    deliver_new_events(app)
    with locked(app):
        for path in (
            "/inbox",
            f"/inbox/{live}",
            "/console/",
            "/console/broadcasts",
            "/api/user/messages",
            "/readyz",
            "/healthz",
        ):
            assert alice.get(path).status_code == 200, path
        stream = StreamReader(alice.http)
        assert [frame.event for frame in stream.read_until("CONNECTED")] == ["MESSAGE", "CONNECTED"]
        stream.close()


def test_database_lost_after_the_commit_is_no_reason_to_say_that_nothing_was_saved(app, client, monkeypatch):
    alice, publish = client("alice"), ("POST", "/api/admin/broadcasts", build_message(title="Kept"))
    key = {"Idempotency-Key": "k"}
    with app.app_context():
        pool = db.engine.pool

    def refuse():
        raise PoolTimeout("all in use")

    with monkeypatch.context() as patch:
        patch.setattr(notify, "notify_workers", lambda: patch.setattr(pool, "connect", refuse))
        unsure = alice.send(*publish, headers=key)
        busy = alice.send(*publish, headers=key)
    assert (unsure.status_code, busy.status_code) == (504, 503)
    assert "may or may not have been saved" in unsure.json["detail"]
    assert int(unsure.headers["Retry-After"]) >= 1
    again = alice.send(*publish, headers=key)
    assert again.json["title"] == "Kept"
    with app.app_context():
        assert count_rows()["broadcasts"] == 1


def test_page_goes_without_its_count_when_only_that_cannot_be_had(client, monkeypatch):
    """Or else the page that says that the database is away, which has a bell too, would be the next to fail."""
    ask = PreparedQuery.fetch_first

    def refuse(question, values):
        if question is inbox._unread_query:
            raise TemporarilyUnavailable
        return ask(question, values)

    alice = client("alice")
    monkeypatch.setattr(PreparedQuery, "fetch_first", refuse)
    assert alice.get("/console/broadcasts").status_code == 200
