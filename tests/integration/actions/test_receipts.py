"""Marking read: only one's own messages, and only once."""

from datetime import timedelta

import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.orm import Session

from broadcast.actions import broadcasts as broadcast_actions
from broadcast.actions import receipts as actions
from broadcast.base.errors import NotFound
from broadcast.bus.protocol import BUS
from broadcast.domain import clock
from broadcast.store import log, receipts
from broadcast.store.database import db
from broadcast.store.inbox import Inbox, InboxFilters
from broadcast.store.models import Receipt
from broadcast.store.transactions import write_transaction
from tests.support.builders import build_message, build_role_message, count_rows, publish_message
from tests.support.databases import DATABASE_URL

NOW = clock.now()


def unread(by) -> list[str]:
    db.session.rollback()
    return [item.card.title for item in Inbox(by.viewer, NOW).list_page(InboxFilters(view="unread"))]


@pytest.fixture
def signals(in_app, monkeypatch) -> list:
    heard: list = []
    monkeypatch.setattr(BUS.of(in_app), "send_signal", lambda name, body: heard.append((name, body)))
    return heard


def test_read_message_stays_read(cast, signals):
    """Idempotent: the second time changes nothing, not even the moment."""
    broadcast_id, bob = publish_message(cast["alice"]), cast["bob"]
    for moment in (NOW, NOW + timedelta(hours=1)):
        actions.mark_read([broadcast_id], by=bob, now=moment)
    assert db.session.get(Receipt, (broadcast_id, bob.user_id)).read_at == NOW
    assert unread(bob) == []
    told = {"user": bob.user_id, "kind": "read", "ids": [broadcast_id], "version": 1}
    assert signals == [("receipt", told)]


def test_reading_leaves_no_trace_in_the_log(cast):
    broadcast_id = publish_message(cast["alice"])
    before = log.get_head()
    actions.mark_read([broadcast_id], by=cast["bob"], now=NOW)
    assert log.get_head() == before


def test_message_of_others_is_not_found(cast, signals):
    """I3"""
    broadcast_id = publish_message(cast["alice"], build_role_message("ops"))
    before = count_rows()
    for name in ("charlie", "alice"):
        with pytest.raises(NotFound):
            actions.mark_read([broadcast_id], by=cast[name], now=NOW)
    assert count_rows() == before
    assert signals == []


def test_ended_message_is_not_found(cast):
    broadcast_id = publish_message(cast["alice"])
    broadcast_actions.cancel(broadcast_id, reason="Wrong", by=cast["alice"], now=NOW)
    with pytest.raises(NotFound):
        actions.mark_read([broadcast_id], by=cast["bob"], now=NOW)


def test_of_many_only_the_own_ones_are_marked(cast):
    mine, theirs = publish_message(cast["alice"]), publish_message(cast["alice"], build_role_message("ops"))
    assert actions.mark_read([mine, theirs, 99_999], by=cast["charlie"], now=NOW).ids == [mine]
    assert db.session.get(Receipt, (theirs, cast["charlie"].user_id)) is None


def test_mark_all_through_leaves_what_came_later(cast):
    publish_message(cast["alice"], build_message(title="early"))
    through = log.get_head().seq
    publish_message(cast["alice"], build_message(title="late"))
    actions.mark_all_read(InboxFilters(), through=through, by=cast["bob"], now=NOW)
    assert unread(cast["bob"]) == ["late"]
    assert set(unread(cast["charlie"])) == {"early", "late"}


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (InboxFilters(category="News"), {"plain", "loud"}),
        (InboxFilters(priority="HIGH"), {"plain", "news"}),
        (InboxFilters(q="lou"), {"plain", "news"}),
        (InboxFilters(q="%"), {"plain", "news", "loud"}),
        (InboxFilters(view="unread"), set()),
        (InboxFilters(), set()),
    ],
)
def test_mark_all_touches_what_the_filter_shows(cast, filters, left):
    for raw in ({"title": "plain"}, {"title": "news", "category": "News"}, {"title": "loud", "priority": "HIGH"}):
        publish_message(cast["alice"], build_message(**raw))
    actions.mark_all_read(filters, through=log.get_head().seq, by=cast["bob"], now=NOW)
    assert set(unread(cast["bob"])) == left


def test_watermark_from_the_future_does_not_swallow_what_comes(cast):
    publish_message(cast["alice"])
    actions.mark_all_read(InboxFilters(), through=10**9, by=cast["bob"], now=NOW)
    publish_message(cast["alice"], build_message(title="next"))
    assert unread(cast["bob"]) == ["next"]


def test_mark_all_with_nothing_to_mark_writes_nothing(cast, signals):
    before = count_rows()
    assert actions.mark_all_read(InboxFilters(), through=99, by=cast["bob"], now=NOW).ids == []
    assert (count_rows(), signals) == (before, [])


@pytest.mark.skipif(not DATABASE_URL, reason="SQLite locks no rows")
def test_shown_marks_and_acts_of_one_person_do_not_wait_for_each_other_for_ever(in_app, cast):
    """The mark holds its row and refers to the person; the act holds the person and wants the row."""
    broadcast_id, bob = publish_message(cast["alice"]), cast["bob"]
    db.session.rollback()
    with db.engine.connect() as elsewhere, write_transaction() as session:
        receipts.lock_user(session, bob.user_id)
        with Session(elsewhere) as other:
            other.execute(text("SET lock_timeout = '1s'"))
            receipts.set_timestamp(other, [(broadcast_id, bob.user_id)], "delivered_at", at=NOW)
            other.commit()
        receipts.set_timestamp(session, [(broadcast_id, bob.user_id)], "read_at", at=NOW)
    row = db.session.get(Receipt, (broadcast_id, bob.user_id))
    assert (row.delivered_at, row.read_at) == (NOW, NOW)


@pytest.mark.parametrize(
    "act",
    [
        actions.mark_read,
        actions.mark_unread,
        actions.archive,
        actions.dismiss,
        lambda ids, by, now: actions.snooze(ids, until=now + timedelta(hours=1), by=by, now=now),
        lambda ids, by, now: actions.mark_all_read(InboxFilters(), through=log.get_head().seq, by=by, now=now),
    ],
    ids=["read", "unread", "archive", "dismiss", "snooze", "read-all"],
)
def test_second_mark_runs_the_statements_of_the_first(cast, act):
    """Building them took four fifths of a mark."""
    ids = [publish_message(cast["alice"]) for _ in range(2)]
    Inbox(cast["alice"].viewer, NOW).list_by_ids(InboxFilters("all"), ids)  # caches their cards
    statements: list[list] = []
    listener = lambda _connection, statement, *_others: statements[-1].append(statement)  # noqa: E731
    sqlalchemy.event.listen(db.engine, "before_execute", listener)
    try:
        for name in ("bob", "charlie"):
            statements.append([])
            actions.mark_read(ids[1:], by=cast[name], now=NOW)
            statements[-1].clear()
            act(ids, by=cast[name], now=NOW)
    finally:
        sqlalchemy.event.remove(db.engine, "before_execute", listener)
    first, second = statements
    assert len(first) > 3
    assert [id(statement) for statement in first] == [id(statement) for statement in second]
