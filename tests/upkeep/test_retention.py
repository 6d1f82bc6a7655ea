"""What is forgotten is old enough, is forgotten whole, and leaves no hole."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from broadcast.actions import broadcasts, receipts, retention
from broadcast.actions.retention import Forgotten, RetentionPolicy
from broadcast.domain import clock
from broadcast.store import log
from broadcast.store import retention as store
from broadcast.store.database import db
from broadcast.store.models import Audit, Broadcast, LogEvent, Receipt
from tests.acts import actor, send
from tests.cast import Client
from tests.conftest import tail

ALL = RetentionPolicy(log_days=30, ended_days=30, receipts_days=0)
LATER = timedelta(days=31)


@pytest.fixture
def ended(app, client) -> int:
    """A broadcast that Bob read and Alice recalled, and then one that lives."""
    client()
    with app.app_context():
        ended = send(by=actor("alice"))
        send(by=actor("alice"))
        receipts.mark_read([ended], by=actor("bob"), now=clock.now())
        broadcasts.cancel(ended, by=actor("alice"), reason="Old", now=clock.now())
    return ended


def count(model) -> int:
    return db.session.scalar(select(func.count()).select_from(model))


def test_nothing_is_forgotten_before_its_time_or_when_all_is_kept(app, ended):
    with app.app_context():
        assert retention.run(ALL, now=clock.now()) == Forgotten(0, 0, 0)
        assert retention.run(RetentionPolicy(0, 0, 0), now=clock.now() + LATER) == Forgotten(0, 0, 0)


def test_ended_broadcast_goes_with_all_that_hangs_on_it_and_the_living_stays(app, ended):
    with app.app_context():
        assert retention.run(ALL, now=clock.now() + LATER).broadcasts == 1
        assert db.session.get(Broadcast, ended) is None
        assert (count(Broadcast), count(Receipt)) == (1, 0)
        row = db.session.scalars(select(Audit).order_by(Audit.id.desc())).first()
        assert (row.action, row.detail["broadcasts"]) == ("retention.run", 1)


def test_receipts_may_go_before_their_broadcast(app, ended):
    with app.app_context():
        forgotten = retention.run(RetentionPolicy(0, 0, receipts_days=30), now=clock.now() + LATER)
        assert forgotten == Forgotten(events=0, broadcasts=0, receipts=1)
        assert count(Broadcast) == 2


def test_log_is_shortened_from_its_beginning_in_batches(app, client, monkeypatch):
    client()
    monkeypatch.setattr(store, "BATCH", 2)
    with app.app_context():
        for _ in range(5):
            send(by=actor("alice"), now=clock.now() - LATER)
        kept = send(by=actor("alice"))
        before = log.head()
        assert retention.run(ALL, now=clock.now()).events >= 5
        assert [event.broadcast_id for event in log.read(0)] == [kept]
        assert log.head() == before


def test_event_that_is_older_than_its_neighbour_leaves_no_hole(app, client):
    """Two nodes whose clocks differ: what counts is the first event that must stay."""
    client()
    with app.app_context():
        send(by=actor("alice"))
        send(by=actor("alice"), now=clock.now() - LATER)
        assert retention.run(ALL, now=clock.now()).events == 0
        assert count(LogEvent) == 2


def test_cursor_below_retention_is_answered_with_reset(make_app, client):
    """F24."""
    client()
    app = make_app()
    with app.app_context():
        old = log.head()
        for _ in range(3):
            send(by=actor("alice"), now=clock.now() - LATER)
        send(by=actor("alice"))
        retention.run(ALL, now=clock.now())
    fresh = make_app()  # a worker that begins now remembers nothing older
    stream = Client.of(fresh, "bob").get(f"/api/sse/connect?after={old}", buffered=False)
    assert b"event: RESET" in next(iter(stream.response))
    stream.close()
    tail(app)
