"""The log: numbers without gaps, in commit order, or nothing at all."""

import threading
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, update
from structlog.testing import capture_logs

from broadcast.base.errors import TemporarilyUnavailable
from broadcast.domain import clock
from broadcast.domain.audience import EveryoneAudience, make_role_audience, make_user_audience
from broadcast.domain.events import Event, EventType
from broadcast.store import log
from broadcast.store.database import db
from broadcast.store.models import LogEvent
from broadcast.store.transactions import write_transaction
from tests.support.background import call_at_once
from tests.support.builders import count_rows
from tests.support.system import wait_for

NOW = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)


def entry(n: int = 0, audience=None) -> log.NewEvent:
    return log.NewEvent(EventType.MESSAGE, None, audience or EveryoneAudience(), {"n": n})


def append(*entries: log.NewEvent) -> list[Event]:
    with write_transaction() as session:
        return log.append(session, entries or [entry()], at=NOW)


def seqs(after: int = 0, **options) -> list[int]:
    db.session.rollback()
    return [event.seq for event in log.read_events(after, **options)]


@pytest.mark.usefixtures("in_app")
class TestAlone:
    def test_new_log_is_empty_and_has_an_epoch(self):
        assert log.get_head().seq == 0
        assert 1 <= len(log.get_head().epoch) <= 16
        assert log.get_oldest_seq() == 1
        assert log.read_events(0) == []

    def test_numbers_have_no_gap_over_batches(self):
        append(entry(), entry())
        append(entry())
        append(entry(), entry(), entry())
        assert seqs() == [1, 2, 3, 4, 5, 6]
        assert log.get_head().seq == 6

    def test_event_is_read_back_as_it_was_appended(self):
        for audience in (EveryoneAudience(), make_role_audience(["ops"]), make_user_audience([3, 1])):
            [written] = append(log.NewEvent(EventType.MESSAGE_REMOVED, 7, audience, {"id": 7, "reason": "ü \u2028 <"}))
            db.session.rollback()
            assert log.read_events(written.seq - 1) == [written]

    def test_appending_nothing_takes_no_number(self):
        with write_transaction() as session:
            assert log.append(session, [], at=NOW) == []
        assert log.get_head().seq == 0

    def test_rollback_leaves_neither_hole_nor_event(self):
        append()
        with pytest.raises(ZeroDivisionError), write_transaction() as session:
            log.append(session, [entry(), entry()], at=NOW)
            raise ZeroDivisionError
        assert log.get_head().seq == 1
        append()
        assert seqs() == [1, 2]

    def test_numbers_taken_and_not_used_are_given_back_by_the_rollback(self):
        with pytest.raises(ZeroDivisionError), write_transaction() as session:
            log.reserve_seqs(session, 10)
            raise ZeroDivisionError
        assert append()[0].seq == 1

    def test_reading_is_bounded_on_every_side(self):
        append(*map(entry, range(10)))
        assert seqs(4) == [5, 6, 7, 8, 9, 10]
        assert seqs(4, through=7) == [5, 6, 7]
        assert seqs(4, limit=2) == [5, 6]
        assert seqs(10) == []

    def test_new_epoch_keeps_the_events_and_ends_the_old_cursors(self):
        append()
        before = log.get_head()
        with write_transaction() as session:
            epoch = log.start_epoch(session)
        assert epoch != before.epoch
        assert log.get_head() == (epoch, 1)
        assert append()[0].cursor == (epoch, 2)

    def test_time_without_a_zone_cannot_be_stored(self):
        with pytest.raises(Exception, match="zone"), write_transaction() as session:
            log.append(session, [entry()], at=datetime(2026, 1, 1))
        assert log.get_head().seq == 0


@pytest.mark.parametrize("strange", [{"type": "MOOD_CHANGED"}, {"audience": {"kind": "moods", "moods": ["calm"]}}])
def test_what_a_newer_version_wrote_is_read_as_unknown_and_told_once(make_app, strange):
    log._warn_unknown_event.cache_clear()
    with make_app(log_level="warning").app_context(), capture_logs() as lines:
        before, row, after = append(entry(), entry(), entry())
        db.session.execute(update(LogEvent).where(LogEvent.seq == row.seq).values(strange))
        db.session.commit()
        for _ in range(2):
            read = log.read_events(before.seq - 1)
            assert [event.type for event in read] == [EventType.MESSAGE, EventType.UNKNOWN, EventType.MESSAGE]
            assert [read[0], read[2]] == [before, after]
            assert not read[1].is_for_clients
            assert log.has_event(read[1])
    assert [(line["event"], line["seq"]) for line in lines] == [("log.unknown_event", row.seq)]


def test_one_number_cannot_be_used_twice(in_app):
    append()
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"), write_transaction() as session:
        row = {"seq": 1, "epoch": "x", "type": "MESSAGE", "audience": {}, "payload": {}, "at": NOW}
        session.execute(insert(LogEvent), [row])
    assert len(seqs()) == 1


def test_later_number_is_never_visible_before_an_earlier_one(make_app):
    """F22: A takes its number and dawdles; B must not be able to commit a greater one meanwhile."""
    app = make_app(database_lock_timeout_seconds=10)
    taken, may_commit = threading.Event(), threading.Event()
    order: list[str] = []

    def slow() -> None:
        with app.app_context(), write_transaction() as session:
            log.append(session, [entry(1)], at=NOW)
            taken.set()
            assert may_commit.wait(10)
            order.append("slow")

    def quick() -> None:
        assert taken.wait(10)
        with app.app_context(), write_transaction() as session:
            log.append(session, [entry(2)], at=NOW)
            order.append("quick")

    threads = [threading.Thread(target=work) for work in (slow, quick)]
    for thread in threads:
        thread.start()
    assert taken.wait(10)
    with app.app_context():
        looks = [seqs() for _ in range(50)]
        may_commit.set()
        wait_for(lambda: len(seqs()) == 2, description="both events")
        assert looks == [[]] * 50
        assert seqs() == [1, 2]
        assert [event.payload["n"] for event in log.read_events(0)] == [1, 2]
    for thread in threads:
        thread.join(10)
    assert order == ["slow", "quick"]


def test_reader_that_follows_many_writers_sees_every_number_in_order(make_app):
    """F22: five writers in odd order, some of them rolling back; the reader only ever sees the next number."""
    app = make_app(database_lock_timeout_seconds=20)
    stop = threading.Event()

    def write(n: int) -> None:
        for round in range(6):
            with suppress(ZeroDivisionError), write_transaction() as session:
                log.append(session, [entry(n)] * (1 + (n + round) % 3), at=clock.now())
                if (n + round) % 4 == 0:
                    raise ZeroDivisionError

    def follow() -> None:
        with app.app_context():
            while not stop.wait(0.002) or len(read) < log.get_head().seq:
                read.extend(seqs(read[-1] if read else 0))

    read: list[int] = []
    reader = threading.Thread(target=follow)
    reader.start()
    try:
        call_at_once(app, 5, write)
    finally:
        stop.set()
        reader.join(30)
    assert read == list(range(1, len(read) + 1))
    assert len(read) > 30


def test_locked_database_is_busy_and_nothing_is_written(make_app):
    app = make_app(database_lock_timeout_seconds=0.2)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with app.app_context(), db.engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection = connection.execution_options(broadcast_writes=True)
            connection.exec_driver_sql("UPDATE log_head SET seq = seq")
            held.set()
            let_go.wait(10)
            connection.rollback()

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    try:
        with app.app_context():
            before = count_rows()
            with pytest.raises(TemporarilyUnavailable):
                append()
            assert count_rows() == before
    finally:
        let_go.set()
        holder.join(10)
    with app.app_context():
        assert append()[0].seq == 1
