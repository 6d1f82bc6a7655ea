"""The tail notices when the log is no longer the one it delivered from: everybody is told to begin anew, once."""

import pytest
from sqlalchemy import delete, select, update

from broadcast.store import log
from broadcast.store.database import db, writing
from broadcast.store.models import Audit, Broadcast, LogEvent, LogHead
from tests.acts import a_message, actor, send


@pytest.fixture
def tail(app, cast):
    """The tail of a worker that has delivered three messages."""
    found = app.extensions["runtime"].tail
    with app.app_context():
        found.start()
        for _ in range(3):
            send(actor("alice"))
        found.catch_up()
        yield found


def lose(count: int) -> None:
    """The last commits are gone, as after a fail-over to a standby that was behind."""
    with writing() as session:
        head = session.scalar(select(LogHead.seq))
        session.execute(update(Broadcast).where(Broadcast.seq > head - count).values(seq=None))
        session.execute(delete(LogEvent).where(LogEvent.seq > head - count))
        session.execute(update(LogHead).values(seq=head - count))


def epochs_begun() -> int:
    return len(db.session.scalars(select(Audit.id).where(Audit.action == "log.epoch")).all())


def test_log_that_ends_before_what_was_delivered_begins_one_new_epoch(tail):
    before = log.head()
    lose(2)
    tail.catch_up()
    assert log.head().epoch != before.epoch
    assert tail._hub.head == log.head()
    tail.catch_up()
    assert epochs_begun() == 1


def test_worker_that_finds_it_second_joins_the_epoch_that_was_begun(app, tail):
    lost = log.head().epoch
    lose(1)
    tail.catch_up()
    begun = log.head().epoch
    app.extensions["runtime"]._begin_epoch(lost)
    db.session.rollback()
    assert log.head().epoch == begun
    assert epochs_begun() == 1


def test_lost_commits_whose_numbers_were_given_out_again_are_noticed_on_the_new_connection(tail):
    before = log.head()
    lose(2)
    for _ in range(3):
        send(actor("alice"), a_message(title="After the fail-over"))
    db.session.rollback()
    db.engine.dispose()
    tail.catch_up()
    assert log.head().epoch != before.epoch
    assert epochs_begun() == 1


def test_new_connection_alone_begins_nothing(tail):
    before = log.head()
    db.session.rollback()
    db.engine.dispose()
    tail.catch_up()
    assert log.head() == before


def test_event_that_retention_took_is_not_missed(tail):
    before = log.head()
    with writing() as session:
        session.execute(delete(LogEvent))
    db.engine.dispose()
    tail.catch_up()
    assert log.head() == before
