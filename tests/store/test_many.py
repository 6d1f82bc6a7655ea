"""Rows of a batch go by the driver, and are the same rows as the ordinary way writes."""

import pytest
from sqlalchemy import insert, select

from broadcast.domain import clock
from broadcast.store.database import db, writing
from broadcast.store.many import insert_many, new_ids
from broadcast.store.models import Broadcast, LogEvent

pytestmark = pytest.mark.usefixtures("in_app")

EVENTS = LogEvent.__table__


def an_event(seq: int, **changes) -> dict:
    row = {"seq": seq, "epoch": "e", "type": "MESSAGE", "broadcast_id": None, "audience": {"kind": "everyone"}}
    return row | {"payload": {"title": "Ärger 🎈", "n": [1, None]}, "at": clock.now(), "correlation": None} | changes


def test_a_row_reads_back_as_one_written_the_ordinary_way():
    row = an_event(900_001)
    with writing() as session:
        insert_many(session, EVENTS, [row])
        session.execute(insert(EVENTS), [row | {"seq": 900_002}])
    ours, ordinary = db.session.execute(select(EVENTS).where(EVENTS.c.seq > 900_000).order_by(EVENTS.c.seq)).mappings()
    assert dict(ours) == row
    assert dict(ours) | {"seq": 900_002} == dict(ordinary)


def test_nothing_of_a_batch_holds_when_one_row_is_refused():
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"), writing() as session:
        insert_many(session, EVENTS, [an_event(900_003), an_event(900_003)])
    assert db.session.scalar(select(EVENTS.c.seq).where(EVENTS.c.seq == 900_003)) is None


def test_rows_that_name_a_column_the_table_has_not_are_refused_before_anything_is_written():
    with pytest.raises(Exception, match="unheard"), writing() as session:
        insert_many(session, EVENTS, [an_event(900_004, unheard="of")])


def test_no_rows_are_nothing_to_do():
    with writing() as session:
        insert_many(session, EVENTS, [])


def test_new_ids_are_above_all_that_were_given_out():
    with writing() as session:
        newest = max(session.scalars(select(Broadcast.id)), default=0)
        ids = new_ids(session, Broadcast.__table__, 3)
    assert len(ids) == 3
    assert ids == sorted(set(ids))
    assert ids[0] > newest
