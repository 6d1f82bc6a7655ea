"""Delivery receipts are written in batches, however they are spread over broadcasts."""

import sqlite3
import threading
from collections.abc import Callable

import gevent
import pytest
import sqlalchemy

from broadcast.domain import clock
from broadcast.store import engine, receipts
from broadcast.store.database import db
from broadcast.store.models import Receipt
from broadcast.streams.receipt_buffer import ReceiptBuffer
from tests.support.builders import publish_message


class FanOut:
    """Stands for the hub's `calm`: a message is on its way, and `meanwhile` happens when somebody waits for its end."""

    def __init__(self, meanwhile: Callable[[float], None]):
        self.is_over, self.wait = False, meanwhile

    def is_set(self) -> bool:
        return self.is_over


@pytest.fixture
def commits(in_app):
    """The commits of this application's engine, as they happen."""
    seen: list[object] = []
    note = seen.append
    sqlalchemy.event.listen(db.engine, "commit", note)
    yield seen
    sqlalchemy.event.remove(db.engine, "commit", note)


def test_hundred_broadcasts_to_three_people_are_one_transaction(cast, commits):
    deliveries, people = ReceiptBuffer(), [actor.user_id for actor in cast.values()]
    ids = [publish_message(cast["alice"]) for _ in range(100)]
    for broadcast_id in ids:
        deliveries.add(broadcast_id, people)
        deliveries.add(broadcast_id, [])
    commits.clear()
    deliveries.flush(clock.now())
    assert len(commits) == 1
    rows = db.session.execute(sqlalchemy.select(Receipt.broadcast_id, Receipt.user_id)).all()
    assert sorted(map(tuple, rows)) == sorted((broadcast_id, user_id) for broadcast_id in ids for user_id in people)
    deliveries.flush(clock.now())
    assert len(commits) == 1


def test_broadcast_that_is_gone_holds_up_no_other(cast, commits):
    deliveries, bob = ReceiptBuffer(), cast["bob"].user_id
    there = publish_message(cast["alice"])
    deliveries.add(there + 1000, [bob])
    deliveries.add(there, [bob])
    deliveries.flush(clock.now())
    rows = db.session.execute(sqlalchemy.select(Receipt.broadcast_id, Receipt.user_id)).all()
    assert list(map(tuple, rows)) == [(there, bob)]


def test_marks_wait_for_a_fan_out_that_is_under_way_but_not_for_ever(cast, commits):
    deliveries, waited = ReceiptBuffer(), []
    fan_out = FanOut(lambda seconds: waited.append((seconds, len(commits))))
    deliveries.add(publish_message(cast["alice"]), [cast["bob"].user_id])
    commits.clear()
    deliveries.flush(clock.now(), fanout_idle=fan_out)
    assert waited == [(0.25, 0)]
    assert len(commits) == 1
    fan_out.is_over = True
    deliveries.add(publish_message(cast["alice"]), [cast["bob"].user_id])
    deliveries.flush(clock.now(), fanout_idle=fan_out)
    assert len(waited) == 1


def test_two_who_flush_at_once_write_the_same_and_neither_fails(cast, commits):
    deliveries, people = ReceiptBuffer(), [actor.user_id for actor in cast.values()]
    for _ in range(100):
        deliveries.add(publish_message(cast["alice"]), people)
    the_other = FanOut(lambda _seconds: deliveries.flush(clock.now()))  # it comes when the first has its batch in hand
    deliveries.flush(clock.now(), fanout_idle=the_other)
    assert db.session.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(Receipt)) == 300


def test_marks_of_very_many_broadcasts_wait_for_no_fan_out(in_app, monkeypatch):
    """Kafka may bring thousands a second, one fan-out after the other: what waits must not grow as long as they come."""
    monkeypatch.setattr(receipts, "set_timestamp", lambda *given, **options: None)
    deliveries, waited_with = ReceiptBuffer(), []
    for broadcast_id in range(1, 3501):
        deliveries.add(broadcast_id, [1])
    deliveries.flush(clock.now(), fanout_idle=FanOut(lambda seconds: waited_with.append(len(deliveries._pending))))
    assert waited_with == [500]


def test_rows_of_a_burst_wait_for_each_fan_out_that_comes_meanwhile(in_app, monkeypatch):
    written, waited_after = [], []
    monkeypatch.setattr(receipts, "set_timestamp", lambda session, pairs, *_, **options: written.append(len(pairs)))
    deliveries = ReceiptBuffer()
    deliveries.add(1, range(2500))
    deliveries.flush(clock.now(), fanout_idle=FanOut(lambda _seconds: waited_after.append(len(written))))
    assert written == [1000, 1000, 500]
    assert waited_after == [0, 1, 2]


def test_others_run_while_the_rows_of_a_burst_are_written(cast, monkeypatch):
    """In a worker a fan-out goes on meanwhile: the statement ends only after another greenlet has run."""
    monkeypatch.setattr(engine, "is_module_patched", lambda name: True)
    deliveries, people = ReceiptBuffer(), [actor.user_id for actor in cast.values()]
    for _ in range(10):
        deliveries.add(publish_message(cast["alice"]), people)
    fan_out_ran, waited = threading.Event(), []
    raw = db.session.connection().connection.dbapi_connection
    if not isinstance(raw, sqlite3.Connection):
        pytest.skip("a server does not work inside the driver")
    raw.set_trace_callback(lambda sql: sql.startswith("INSERT INTO receipts") and waited.append(fan_out_ran.wait(10)))
    gevent.spawn_later(0.001, fan_out_ran.set)
    deliveries.flush(clock.now())
    raw.set_trace_callback(None)
    assert waited == [True]
    assert db.session.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(Receipt)) == 30
