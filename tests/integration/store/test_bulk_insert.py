"""Bulk inserts through the driver write the same rows as the ORM."""

import json
import sqlite3
import threading

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from broadcast.domain import clock
from broadcast.domain.events import encode_compact_json
from broadcast.store import engine
from broadcast.store.database import db
from broadcast.store.fast.bulk_insert import STATEMENT_ROWS, insert_many, reserve_ids
from broadcast.store.models import Broadcast, LogEvent
from broadcast.store.transactions import write_transaction

pytestmark = pytest.mark.usefixtures("in_app")

EVENTS = LogEvent.__table__


def an_event(seq: int, **changes) -> dict:
    row = {"seq": seq, "epoch": "e", "type": "MESSAGE", "broadcast_id": None, "audience": {"kind": "everyone"}}
    row |= {"payload": {"title": "Ärger 🎈", "n": [1, None]}, "at": clock.now()}
    return row | {"correlation": None, "traceparent": None} | changes


def test_a_row_reads_back_as_one_written_the_ordinary_way():
    row = an_event(900_001)
    with write_transaction() as session:
        insert_many(session, EVENTS, [row])
        session.execute(insert(EVENTS), [row | {"seq": 900_002}])
    ours, ordinary = db.session.execute(select(EVENTS).where(EVENTS.c.seq > 900_000).order_by(EVENTS.c.seq)).mappings()
    assert dict(ours) == row
    assert dict(ours) | {"seq": 900_002} == dict(ordinary)


def test_many_rows_read_back_in_whatever_number_they_come():
    rows = [an_event(900_100 + n, payload=encode_compact_json({"n": n})) for n in range(sum(STATEMENT_ROWS) + 7)]
    with write_transaction() as session:
        insert_many(session, EVENTS, rows)
    found = db.session.execute(select(EVENTS).where(EVENTS.c.seq >= 900_100).order_by(EVENTS.c.seq)).mappings()
    assert [dict(row) for row in found] == [row | {"payload": json.loads(row["payload"])} for row in rows]


@pytest.mark.parametrize("in_a_worker", [True, False])
def test_many_rows_are_written_in_a_thread_of_a_worker_and_nowhere_else(in_a_worker, monkeypatch):
    monkeypatch.setattr(engine, "is_module_patched", lambda name: in_a_worker)
    written_by = set()
    with write_transaction() as session:
        raw = session.connection().connection.dbapi_connection
        if not isinstance(raw, sqlite3.Connection):
            pytest.skip("a server does not work inside the driver")
        raw.set_trace_callback(
            lambda sql: sql.startswith("INSERT INTO events") and written_by.add(threading.get_ident())
        )
        insert_many(session, EVENTS, [an_event(901_000 + n) for n in range(sum(STATEMENT_ROWS))])
        raw.set_trace_callback(None)
    assert len(written_by) == 1
    assert (threading.get_ident() in written_by) is not in_a_worker


@pytest.mark.parametrize("count", [2, *STATEMENT_ROWS])
def test_nothing_of_a_batch_holds_when_one_row_is_refused(count):
    with pytest.raises(IntegrityError, match=r"(?i)unique|duplicate"), write_transaction() as session:
        insert_many(session, EVENTS, [an_event(900_003)] * count)
    assert db.session.scalar(select(EVENTS.c.seq).where(EVENTS.c.seq == 900_003)) is None


def test_rows_that_name_a_column_the_table_has_not_are_refused_before_anything_is_written():
    with pytest.raises(Exception, match="unheard"), write_transaction() as session:
        insert_many(session, EVENTS, [an_event(900_004, unheard="of")])


def test_no_rows_are_nothing_to_do():
    with write_transaction() as session:
        insert_many(session, EVENTS, [])


def test_new_ids_are_above_all_that_were_given_out():
    with write_transaction() as session:
        newest = max(session.scalars(select(Broadcast.id)), default=0)
        ids = reserve_ids(session, Broadcast.__table__, 3)
    assert len(ids) == 3
    assert ids == sorted(set(ids))
    assert ids[0] > newest
