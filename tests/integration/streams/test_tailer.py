"""The tailer detects that the log is no longer the one it delivered from: every stream gets one RESET."""

import pytest
from sqlalchemy import delete, select

from broadcast.store import log
from broadcast.store.database import db
from broadcast.store.models import AuditEntry, LogEvent
from broadcast.store.transactions import write_transaction
from broadcast.worker.runtime import RUNTIME
from tests.support.builders import build_message, load_actor, lose_commits, publish_message


@pytest.fixture
def tail(app, cast):
    """The tail of a worker that has delivered three messages."""
    found = RUNTIME.of(app).tailer
    with app.app_context():
        found.start()
        for _ in range(3):
            publish_message(load_actor("alice"))
        found.catch_up()
        yield found


def epochs_begun() -> int:
    return len(db.session.scalars(select(AuditEntry.id).where(AuditEntry.action == "log.epoch")).all())


def test_log_that_ends_before_what_was_delivered_begins_one_new_epoch(tail):
    before = log.get_head()
    lose_commits(2)
    tail.catch_up()
    assert log.get_head().epoch != before.epoch
    assert tail._hub.head == log.get_head()
    tail.catch_up()
    assert epochs_begun() == 1


def test_worker_that_finds_it_second_joins_the_epoch_that_was_begun(app, tail):
    lost = log.get_head().epoch
    lose_commits(1)
    tail.catch_up()
    begun = log.get_head().epoch
    RUNTIME.of(app)._begin_epoch(lost)
    db.session.rollback()
    assert log.get_head().epoch == begun
    assert epochs_begun() == 1


def test_lost_commits_whose_numbers_were_given_out_again_are_noticed_on_the_new_connection(tail):
    before = log.get_head()
    lose_commits(2)
    for _ in range(3):
        publish_message(load_actor("alice"), build_message(title="After the fail-over"))
    db.session.rollback()
    db.engine.dispose()
    tail.catch_up()
    assert log.get_head().epoch != before.epoch
    assert epochs_begun() == 1


def test_new_connection_alone_begins_nothing(tail):
    before = log.get_head()
    db.session.rollback()
    db.engine.dispose()
    tail.catch_up()
    assert log.get_head() == before


def test_event_that_retention_took_is_not_missed(tail):
    before = log.get_head()
    with write_transaction() as session:
        session.execute(delete(LogEvent))
    db.engine.dispose()
    tail.catch_up()
    assert log.get_head() == before
