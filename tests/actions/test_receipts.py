"""Marking read: only what is one's own, once and for all."""

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from broadcast.actions import broadcasts as broadcast_actions
from broadcast.actions import receipts as actions
from broadcast.base.errors import NotFound
from broadcast.domain import clock
from broadcast.store import inbox, log, receipts
from broadcast.store.database import db, writing
from broadcast.store.inbox import Filters
from broadcast.store.models import Receipt
from tests.acts import a_message, count_rows, send, to_role
from tests.databases import DATABASE_URL

NOW = clock.now()


def unread(by) -> list[str]:
    db.session.rollback()
    return [item.card.title for item in inbox.page(by.viewer, Filters(view="unread"), now=NOW)]


@pytest.fixture
def signals(in_app, monkeypatch) -> list:
    heard: list = []
    monkeypatch.setattr(in_app.extensions["bus"], "signal", lambda name, body: heard.append((name, body)))
    return heard


def test_read_message_stays_read(cast, signals):
    """Idempotent: the second time changes nothing, not even the moment."""
    broadcast_id, bob = send(cast["alice"]), cast["bob"]
    for moment in (NOW, NOW + timedelta(hours=1)):
        actions.mark_read([broadcast_id], by=bob, now=moment)
    assert db.session.get(Receipt, (broadcast_id, bob.user_id)).read_at == NOW
    assert unread(bob) == []
    told = {"user": bob.user_id, "kind": "read", "ids": [broadcast_id], "version": 1}
    assert signals == [("receipt", told)]


def test_reading_leaves_no_trace_in_the_log(cast):
    broadcast_id = send(cast["alice"])
    before = log.head()
    actions.mark_read([broadcast_id], by=cast["bob"], now=NOW)
    assert log.head() == before


def test_message_of_others_is_not_found(cast, signals):
    """I3"""
    broadcast_id = send(cast["alice"], to_role("ops"))
    before = count_rows()
    for name in ("charlie", "alice"):
        with pytest.raises(NotFound):
            actions.mark_read([broadcast_id], by=cast[name], now=NOW)
    assert count_rows() == before
    assert signals == []


def test_ended_message_is_not_found(cast):
    broadcast_id = send(cast["alice"])
    broadcast_actions.cancel(broadcast_id, reason="Wrong", by=cast["alice"], now=NOW)
    with pytest.raises(NotFound):
        actions.mark_read([broadcast_id], by=cast["bob"], now=NOW)


def test_of_many_only_the_own_ones_are_marked(cast):
    mine, theirs = send(cast["alice"]), send(cast["alice"], to_role("ops"))
    assert actions.mark_read([mine, theirs, 99_999], by=cast["charlie"], now=NOW).ids == [mine]
    assert db.session.get(Receipt, (theirs, cast["charlie"].user_id)) is None


def test_mark_all_through_leaves_what_came_later(cast):
    send(cast["alice"], a_message(title="early"))
    through = log.head().seq
    send(cast["alice"], a_message(title="late"))
    actions.mark_all_read(Filters(), through=through, by=cast["bob"], now=NOW)
    assert unread(cast["bob"]) == ["late"]
    assert set(unread(cast["charlie"])) == {"early", "late"}


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (Filters(category="News"), {"plain", "loud"}),
        (Filters(priority="HIGH"), {"plain", "news"}),
        (Filters(q="lou"), {"plain", "news"}),
        (Filters(q="%"), {"plain", "news", "loud"}),
        (Filters(view="unread"), set()),
        (Filters(), set()),
    ],
)
def test_mark_all_touches_what_the_filter_shows(cast, filters, left):
    for raw in ({"title": "plain"}, {"title": "news", "category": "News"}, {"title": "loud", "priority": "HIGH"}):
        send(cast["alice"], a_message(**raw))
    actions.mark_all_read(filters, through=log.head().seq, by=cast["bob"], now=NOW)
    assert set(unread(cast["bob"])) == left


def test_watermark_from_the_future_does_not_swallow_what_comes(cast):
    send(cast["alice"])
    actions.mark_all_read(Filters(), through=10**9, by=cast["bob"], now=NOW)
    send(cast["alice"], a_message(title="next"))
    assert unread(cast["bob"]) == ["next"]


def test_mark_all_with_nothing_to_mark_writes_nothing(cast, signals):
    before = count_rows()
    assert actions.mark_all_read(Filters(), through=99, by=cast["bob"], now=NOW).ids == []
    assert (count_rows(), signals) == (before, [])


@pytest.mark.skipif(not DATABASE_URL, reason="SQLite locks no rows")
def test_shown_marks_and_acts_of_one_person_do_not_wait_for_each_other_for_ever(in_app, cast):
    """The mark holds its row and refers to the person; the act holds the person and wants the row."""
    broadcast_id, bob = send(cast["alice"]), cast["bob"]
    db.session.rollback()
    with db.engine.connect() as elsewhere, writing() as session:
        receipts.lock_person(session, bob.user_id)
        with Session(elsewhere) as other:
            other.execute(text("SET lock_timeout = '1s'"))
            receipts.mark(other, [(broadcast_id, bob.user_id)], "delivered_at", at=NOW)
            other.commit()
        receipts.mark(session, [(broadcast_id, bob.user_id)], "read_at", at=NOW)
    row = db.session.get(Receipt, (broadcast_id, bob.user_id))
    assert (row.delivered_at, row.read_at) == (NOW, NOW)
