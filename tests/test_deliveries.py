"""Who was shown what is written down in batches, however it is spread over broadcasts."""

import pytest
import sqlalchemy

from broadcast.deliveries import Deliveries
from broadcast.domain import clock
from broadcast.store.database import db
from broadcast.store.models import Receipt
from tests.acts import send


@pytest.fixture
def commits(in_app):
    """The commits of this application's engine, as they happen."""
    seen: list[object] = []
    note = seen.append
    sqlalchemy.event.listen(db.engine, "commit", note)
    yield seen
    sqlalchemy.event.remove(db.engine, "commit", note)


def test_hundred_broadcasts_to_three_people_are_two_transactions(cast, commits):
    deliveries, people = Deliveries(), [actor.user_id for actor in cast.values()]
    ids = [send(cast["alice"]) for _ in range(100)]
    for broadcast_id in ids:
        deliveries.add(broadcast_id, people)
        deliveries.add(broadcast_id, [])
    commits.clear()
    deliveries.flush(clock.now())
    assert len(commits) == 2
    rows = db.session.execute(sqlalchemy.select(Receipt.broadcast_id, Receipt.user_id)).all()
    assert sorted(map(tuple, rows)) == sorted((broadcast_id, user_id) for broadcast_id in ids for user_id in people)
    deliveries.flush(clock.now())
    assert len(commits) == 2


def test_broadcast_that_is_gone_holds_up_no_other(cast, commits):
    deliveries, bob = Deliveries(), cast["bob"].user_id
    there = send(cast["alice"])
    deliveries.add(there + 1000, [bob])
    deliveries.add(there, [bob])
    deliveries.flush(clock.now())
    rows = db.session.execute(sqlalchemy.select(Receipt.broadcast_id, Receipt.user_id)).all()
    assert list(map(tuple, rows)) == [(there, bob)]
