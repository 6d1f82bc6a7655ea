"""Retention deletes only what is old enough, deletes it completely, and leaves no gap."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from broadcast.actions import broadcasts, receipts, retention
from broadcast.actions.retention import DeletedCounts, RetentionPolicy
from broadcast.domain import clock
from broadcast.store import log
from broadcast.store import retention as store
from broadcast.store.database import db
from broadcast.store.models import AuditEntry, Broadcast, LogEvent, Receipt
from tests.conftest import deliver_new_events
from tests.support.builders import load_actor, publish_message
from tests.support.users import BrowserClient

ALL = RetentionPolicy(log_days=30, ended_days=30, receipts_days=0)
LATER = timedelta(days=31)


@pytest.fixture
def ended(app, client) -> int:
    """A broadcast that Bob read and Alice recalled, and then one that lives."""
    client()
    with app.app_context():
        ended = publish_message(by=load_actor("alice"))
        publish_message(by=load_actor("alice"))
        receipts.mark_read([ended], by=load_actor("bob"), now=clock.now())
        broadcasts.cancel(ended, by=load_actor("alice"), reason="Old", now=clock.now())
    return ended


def count(model) -> int:
    return db.session.scalar(select(func.count()).select_from(model))


def test_nothing_is_forgotten_before_its_time_or_when_all_is_kept(app, ended):
    with app.app_context():
        assert retention.delete_expired(ALL, now=clock.now()) == DeletedCounts(0, 0, 0)
        assert retention.delete_expired(RetentionPolicy(0, 0, 0), now=clock.now() + LATER) == DeletedCounts(0, 0, 0)


def test_ended_broadcast_goes_with_all_that_hangs_on_it_and_the_living_stays(app, ended):
    with app.app_context():
        assert retention.delete_expired(ALL, now=clock.now() + LATER).broadcasts == 1
        assert db.session.get(Broadcast, ended) is None
        assert (count(Broadcast), count(Receipt)) == (1, 0)
        row = db.session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc())).first()
        assert (row.action, row.detail["broadcasts"]) == ("retention.run", 1)


def test_receipts_may_go_before_their_broadcast(app, ended):
    with app.app_context():
        forgotten = retention.delete_expired(RetentionPolicy(0, 0, receipts_days=30), now=clock.now() + LATER)
        assert forgotten == DeletedCounts(events=0, broadcasts=0, receipts=1)
        assert count(Broadcast) == 2


def test_log_is_shortened_from_its_beginning_in_batches(app, client, monkeypatch):
    client()
    monkeypatch.setattr(store, "BATCH_ROWS", 2)
    with app.app_context():
        for _ in range(5):
            publish_message(by=load_actor("alice"), now=clock.now() - LATER)
        kept = publish_message(by=load_actor("alice"))
        before = log.get_head()
        assert retention.delete_expired(ALL, now=clock.now()).events >= 5
        assert [event.broadcast_id for event in log.read_events(0)] == [kept]
        assert log.get_head() == before


def test_event_that_is_older_than_its_neighbour_leaves_no_hole(app, client):
    """Two nodes whose clocks differ: what counts is the first event that must stay."""
    client()
    with app.app_context():
        publish_message(by=load_actor("alice"))
        publish_message(by=load_actor("alice"), now=clock.now() - LATER)
        assert retention.delete_expired(ALL, now=clock.now()).events == 0
        assert count(LogEvent) == 2


def test_cursor_below_retention_is_answered_with_reset(make_app, client):
    """F24."""
    client()
    app = make_app()
    with app.app_context():
        old = log.get_head()
        for _ in range(3):
            publish_message(by=load_actor("alice"), now=clock.now() - LATER)
        publish_message(by=load_actor("alice"))
        retention.delete_expired(ALL, now=clock.now())
    fresh = make_app()  # a worker that begins now remembers nothing older
    stream = BrowserClient.for_user(fresh, "bob").get(f"/api/sse/connect?after={old}", buffered=False)
    assert b"event: RESET" in next(iter(stream.response))
    stream.close()
    deliver_new_events(app)
