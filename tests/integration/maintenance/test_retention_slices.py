"""Retention uses transactions of bounded size; if it is killed, it leaves nothing that could pass for statistics."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import event, func, select

from broadcast.actions import retention
from broadcast.actions.retention import RetentionPolicy
from broadcast.actions.users import create_user
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import receipts
from broadcast.store import retention as store
from broadcast.store.database import db
from broadcast.store.models import AuditEntry, Broadcast, BroadcastUser, Receipt
from broadcast.store.transactions import write_transaction
from tests.support.builders import build_user_message, expire_broadcast, publish_message

BATCH = 5
PEOPLE = 23
OVER = timedelta(days=31)
ALL = RetentionPolicy(log_days=0, ended_days=30, receipts_days=0)


@pytest.fixture
def ended(cast, monkeypatch) -> list[int]:
    """Three broadcasts that ended, each with a receipt of everybody it names, and a live one."""
    monkeypatch.setattr(store, "BATCH_ROWS", BATCH)
    names = [f"person{n}" for n in range(PEOPLE)]
    for name in names:
        create_user(name, None, by=SYSTEM, now=clock.now())
    ids = [publish_message(cast["alice"], build_user_message(*names)) for _ in range(4)]
    users = list(db.session.scalars(select(BroadcastUser.user_id).where(BroadcastUser.broadcast_id == ids[0])))
    with write_transaction() as session:
        receipts.set_timestamp(session, [(id, user) for id in ids for user in users], "read_at", at=clock.now())
    for broadcast_id in ids[:3]:
        expire_broadcast(broadcast_id, now=clock.now())
    return ids[:3]


@pytest.fixture
def deleted() -> Iterator[list[int]]:
    """How many rows each transaction deleted."""
    counted = [0]

    def count(connection, cursor, statement, *_):
        if statement.startswith("DELETE"):
            counted[-1] += cursor.rowcount

    def end(connection):
        counted.append(0)

    event.listen(db.engine, "after_cursor_execute", count)
    event.listen(db.engine, "commit", end)
    yield counted
    event.remove(db.engine, "after_cursor_execute", count)
    event.remove(db.engine, "commit", end)


def count(model) -> int:
    return db.session.scalar(select(func.count()).select_from(model))


@pytest.mark.parametrize("keep", [ALL, RetentionPolicy(0, 0, receipts_days=30)])
def test_no_transaction_deletes_more_rows_than_a_batch(ended, deleted, keep):
    forgotten = retention.delete_expired(keep, now=clock.now() + OVER)
    assert forgotten.receipts == 3 * PEOPLE
    assert count(Receipt) == PEOPLE
    assert max(deleted) <= BATCH
    assert sum(deleted) >= 3 * PEOPLE


def test_broadcast_goes_with_its_people_and_its_key(ended, deleted):
    assert retention.delete_expired(ALL, now=clock.now() + OVER).broadcasts == 3
    assert (count(Broadcast), count(BroadcastUser)) == (1, PEOPLE)
    audited = db.session.scalars(select(AuditEntry).where(AuditEntry.action == "retention.run")).all()
    assert [row.detail["broadcasts"] for row in audited] == [3]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("steps", range(1, 12, 2))
def test_run_that_is_killed_shows_no_half_figures_and_the_next_one_finishes(ended, client, monkeypatch, steps):
    pauses = iter(range(steps))

    def pause(_seconds: float) -> None:
        if next(pauses, None) is None:
            raise Killed

    monkeypatch.setattr(retention.gevent, "sleep", pause)
    with pytest.raises(Killed):
        retention.delete_expired(ALL, now=clock.now() + OVER)
    monkeypatch.undo()
    alice = client("alice")
    for broadcast_id in ended:
        broadcast = db.session.get(Broadcast, broadcast_id, populate_existing=True)
        has = db.session.scalar(select(func.count()).where(Receipt.broadcast_id == broadcast_id))
        stats = alice.get(f"/api/admin/broadcasts/{broadcast_id}/stats").json
        assert stats["read"] == (None if broadcast.receipts_deleted_at else PEOPLE)
        assert broadcast.receipts_deleted_at or has == PEOPLE
    assert db.session.scalar(select(func.count()).where(AuditEntry.action == "retention.run")) == 1
    retention.delete_expired(ALL, now=clock.now() + OVER)
    assert (count(Broadcast), count(Receipt)) == (1, PEOPLE)


def test_pages_say_that_receipts_are_deleted(ended, client):
    retention.delete_expired(RetentionPolicy(0, 0, receipts_days=30), now=clock.now() + OVER)
    alice, path = client("alice"), f"/console/broadcasts/{ended[0]}"
    for page in (path, f"{path}/figures"):
        shown = alice.get(page).get_data(as_text=True)
        assert "Statistics are no longer available." in shown
        assert "have acknowledged" not in shown
    assert "its receipts have been deleted" in alice.get("/console/broadcasts").get_data(as_text=True)
    assert alice.get(f"{path}/figures.csv").status_code == 404
    assert alice.get(f"/api/admin/broadcasts/{ended[0]}").json["receiptsDeletedAt"]


def test_log_is_never_read_through_to_find_what_may_go(cast, monkeypatch):
    """Of a log in which all is old, each step looks at its own rows only."""
    monkeypatch.setattr(store, "BATCH_ROWS", 3)
    for _ in range(10):
        publish_message(cast["alice"], now=clock.now() - OVER)
    assert retention.delete_expired(RetentionPolicy(30, 0, 0), now=clock.now()).events == 10
