"""F18: many broadcasts due at the same time, two schedulers: each is sent once, in order of its time."""

from datetime import datetime, timedelta

import pytest

from broadcast.actions import broadcasts as actions
from broadcast.domain import clock
from broadcast.store import audit, broadcasts, log
from broadcast.store.database import db
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction
from broadcast.worker import scheduler
from tests.support.background import call_at_once
from tests.support.builders import build_message, publish_message


def a_thousand(alice) -> list[int]:
    """Ids of as many plans, all of them due in ten minutes and over after twenty, in the order of their time."""
    now = clock.now()
    times = {"scheduledAt": now + timedelta(minutes=10), "expiresAt": now + timedelta(minutes=20)}
    first = publish_message(alice, build_message(**{name: clock.to_rfc3339(at) for name, at in times.items()}))
    with write_transaction() as session:
        row = session.get(Broadcast, first)
        copied = {c.name: getattr(row, c.name) for c in Broadcast.__table__.columns if c.name != "id"}
        session.add_all(Broadcast(**copied) for _ in range(999))
    return list(range(first, first + 1000))


def run_two_clocks(make_app, at: datetime) -> None:
    def run(_: int) -> None:
        while (next_at := broadcasts.get_next_due_at()) and next_at <= at:
            scheduler.tick(at)
            db.session.rollback()

    call_at_once(make_app(database_lock_timeout_seconds=20), 2, run)
    db.session.rollback()


def test_thousand_due_at_once_are_sent_and_ended_once_each_and_in_order_by_two_clocks(cast, make_app):
    """F18"""
    ids = a_thousand(cast["alice"])
    for minutes in (15, 25):
        run_two_clocks(make_app, clock.now() + timedelta(minutes=minutes))
    logged = [
        (e.type.value, e.broadcast_id) for after in range(0, 2500, log.PAGE_EVENTS) for e in log.read_events(after)
    ]
    assert logged == [("MESSAGE", id) for id in ids] + [("MESSAGE_REMOVED", id) for id in ids]
    rows = broadcasts.list_page("ended", limit=2000)
    assert {row.id: row.seq for row in rows} == {id: n for n, id in enumerate(ids, 1)}
    assert audit.verify_chain().broken_id is None
    assert [act.action for act in broadcasts.list_audit_entries(ids[-1])] == [
        "broadcast.published",
        "broadcast.expired",
    ]


def test_thousand_due_at_once_take_few_transactions(cast, monkeypatch):
    """One by one they took the machine half a minute: each waits for the disk."""
    a_thousand(cast["alice"])
    parts: list[int] = []
    release = actions.release_due

    def count(ids: list[int], **options) -> list[int] | None:
        parts.append(len(ids))
        return release(ids, **options)

    monkeypatch.setattr(actions, "release_due", count)
    scheduler.tick(clock.now() + timedelta(minutes=15))
    assert (sum(parts), len(parts)) == (1000, 1000 / broadcasts.DUE_BATCH_SIZE)


@pytest.mark.parametrize("failing", [0, 500, 999])
def test_crash_in_the_middle_leaves_a_beginning_sent_whole(cast, monkeypatch, failing):
    """The clock that comes next goes on where it ended; none is sent twice."""
    ids = a_thousand(cast["alice"])
    take = log.reserve_seqs
    left = [failing // broadcasts.DUE_BATCH_SIZE]

    def crash(session, count):
        left[0] -= 1
        if left[0] < 0:
            raise SystemExit
        return take(session, count)

    later = clock.now() + timedelta(minutes=15)
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(log, "reserve_seqs", crash)
        scheduler.tick(later)
    db.session.rollback()
    done = failing // broadcasts.DUE_BATCH_SIZE * broadcasts.DUE_BATCH_SIZE
    assert log.get_head().seq == done
    scheduler.tick(later)
    assert [e.broadcast_id for after in range(0, 1000, log.PAGE_EVENTS) for e in log.read_events(after)] == ids
