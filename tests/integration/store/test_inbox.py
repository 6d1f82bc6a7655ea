"""What one user may see: audience and time are checked at every read."""

from datetime import timedelta

import pytest
import sqlalchemy

from broadcast.actions import broadcasts as actions
from broadcast.actions import receipts
from broadcast.actions import users as people_actions
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.audience import Viewer
from broadcast.store import inbox, log
from broadcast.store.database import db
from broadcast.store.inbox import EndedInbox, Inbox, InboxFilters
from tests.support.builders import build_message, build_role_message, build_user_message, load_actor, publish_message
from tests.support.databases import DATABASE_URL

NOW = clock.now()


def shown(by: Actor, *, now=NOW, **options) -> list[str]:
    filters = options.pop("filters", InboxFilters())
    return [item.card.title for item in Inbox(by.viewer, now).list_page(filters, **options)]


@pytest.fixture
def four(cast) -> dict[str, int]:
    """One message for each audience, by title."""
    alice = cast["alice"]
    return {
        "all": publish_message(alice, build_message(title="all")),
        "ops": publish_message(alice, build_role_message("ops", title="ops")),
        "admin": publish_message(alice, build_role_message("admin", title="admin")),
        "charlie": publish_message(alice, build_user_message("charlie", title="charlie")),
    }


def test_each_person_sees_their_own_and_nothing_else(cast, four):
    """I3: nothing outside the audience in list, counts, one message, marks, categories and pending."""
    mine = {"alice": {"all", "admin"}, "bob": {"all", "ops"}, "charlie": {"all", "charlie"}}
    for name, titles in mine.items():
        viewer = cast[name].viewer
        ids = {four[title] for title in titles}
        assert set(shown(cast[name])) == titles
        assert Inbox(viewer, NOW).count_unread().count == Inbox(viewer, NOW).count_views().inbox == 2
        assert Inbox(viewer, NOW).filter_visible_ids(list(four.values())) == ids
        assert {item.card.id for item in Inbox(viewer, NOW).list_unread_backlog(through=99, limit=9)} == ids
        assert set(Inbox(viewer, NOW).list_unread_ids(InboxFilters(), through=99)) == ids
        assert {one for one in four.values() if Inbox(viewer, NOW).find(one)} == ids


def test_role_is_asked_at_the_moment_of_the_look(cast, four):
    people_actions.set_roles(cast["charlie"].user_id, ["ops"], by=cast["alice"], now=NOW)
    people_actions.set_roles(cast["bob"].user_id, [], by=cast["alice"], now=NOW)
    assert shown(load_actor("charlie")) == ["charlie", "ops", "all"]
    assert shown(load_actor("bob")) == ["all"]


def test_person_who_does_not_exist_sees_nothing(cast, four):
    assert Inbox(Viewer(99_999, frozenset({"ops"})), NOW).list_page(InboxFilters()) == []


def test_newest_comes_first(cast, four):
    assert shown(cast["bob"]) == ["ops", "all"]


def test_drafts_and_scheduled_ones_are_not_shown(cast):
    publish_message(cast["alice"], build_message(draft=True))
    publish_message(cast["alice"], build_message(scheduledAt=clock.to_rfc3339(clock.now() + timedelta(hours=1))))
    assert shown(cast["bob"]) == []
    assert Inbox(cast["bob"].viewer, NOW).count_views().inbox == 0


def test_expired_message_is_gone_before_the_clock_has_run(cast):
    now = clock.now()
    ends = clock.parse_rfc3339(clock.to_rfc3339(now + timedelta(minutes=5)))
    broadcast_id = publish_message(cast["alice"], build_message(expiresAt=clock.to_rfc3339(ends)), now=now)
    bob, before, at = cast["bob"], ends - timedelta(milliseconds=1), ends
    assert shown(bob, now=before) == ["Lifts"]
    assert shown(bob, now=at) == []
    assert Inbox(bob.viewer, at).find(broadcast_id) is None
    assert Inbox(bob.viewer, at).count_unread().count == Inbox(bob.viewer, at).count_views().inbox == 0
    assert Inbox(bob.viewer, at).list_unread_backlog(through=99, limit=9) == []
    assert Inbox(bob.viewer, at).filter_visible_ids([broadcast_id]) == set()


def test_recalled_message_never_shows_again(cast):
    broadcast_id = publish_message(cast["alice"])
    actions.cancel(broadcast_id, reason="Wrong", by=cast["alice"], now=NOW)
    assert shown(cast["bob"]) == []
    assert Inbox(cast["bob"].viewer, NOW).find(broadcast_id) is None


def test_unread_count_follows_reading(cast, four):
    bob = cast["bob"]
    receipts.mark_read([four["all"]], by=bob, now=NOW)
    assert Inbox(bob.viewer, NOW).count_unread().count == 1
    assert Inbox(bob.viewer, NOW).count_views().inbox == 2
    assert shown(bob, filters=InboxFilters(view="unread")) == ["ops"]
    assert [item.is_read for item in Inbox(bob.viewer, NOW).list_page(InboxFilters())] == [False, True]
    assert Inbox(cast["charlie"].viewer, NOW).count_unread().count == 2


def test_watermark_reads_what_lies_below_it_and_nothing_above(cast, four):
    bob = cast["bob"]
    through = log.get_head().seq
    publish_message(cast["alice"], build_message(title="later"))
    receipts.mark_all_read(InboxFilters(), through=through, by=bob, now=NOW)
    assert shown(bob, filters=InboxFilters(view="unread")) == ["later"]
    assert Inbox(bob.viewer, NOW).count_unread().count == 1
    assert [item.card.title for item in Inbox(bob.viewer, NOW).list_unread_backlog(through=99, limit=9)] == ["later"]


def test_pending_is_the_newest_in_the_order_of_the_log(cast):
    for n in range(5):
        publish_message(cast["alice"], build_message(title=str(n)))
    found = Inbox(cast["bob"].viewer, NOW).list_unread_backlog(through=4, limit=3)
    assert [item.card.title for item in found] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("filters", "titles"),
    [
        (InboxFilters(category="News"), {"one"}),
        (InboxFilters(category="news"), set()),
        (InboxFilters(priority="HIGH"), {"two"}),
        (InboxFilters(priority="High' OR 1=1 --"), set()),
        (InboxFilters(q="LIFT"), {"one", "two"}),
        (InboxFilters(q="fifth floor"), {"two"}),
        (InboxFilters(category="News", q="fifth"), set()),
        (InboxFilters(view="nonsense"), {"one", "two"}),
    ],
)
def test_filters_narrow(cast, filters, titles):
    publish_message(cast["alice"], build_message(title="one", content="Lift 1 stands", category="News"))
    publish_message(cast["alice"], build_message(title="two", content="The lift to the fifth floor", priority="HIGH"))
    assert set(shown(cast["bob"], filters=filters)) == titles


@pytest.mark.parametrize("sign", ["%", "_", "\\", "\\%", "100%", "a_b", "'", '"', "%%", "*", "?"])
def test_search_takes_every_sign_literally(cast, sign):
    publish_message(cast["alice"], build_message(title=f"with {sign} in it"))
    publish_message(cast["alice"], build_message(title="plain words axb 100"))
    assert shown(cast["bob"], filters=InboxFilters(q=sign)) == [f"with {sign} in it"]


def test_paging_never_skips_or_repeats_while_messages_arrive(cast):
    for n in range(7):
        publish_message(cast["alice"], build_message(title=str(n)))
    seen: list[str] = []
    before = None
    while items := Inbox(cast["bob"].viewer, NOW).list_page(InboxFilters(), before=before, limit=3):
        seen += [item.card.title for item in items]
        before = items[-1].seq
        publish_message(cast["alice"], build_message(title="new"))
    assert seen == list("6543210")


def test_categories_are_those_of_the_own_inbox(cast):
    publish_message(cast["alice"], build_message(category="News"))
    publish_message(cast["alice"], build_role_message("ops", category="Ops"))
    publish_message(cast["alice"], build_message(category="News"))
    assert Inbox(cast["bob"].viewer, NOW).list_categories() == ["News", "Ops"]
    assert Inbox(cast["charlie"].viewer, NOW).list_categories() == ["News"]


@pytest.mark.skipif(bool(DATABASE_URL), reason="PostgreSQL decides by the number of rows")
def test_counting_reads_the_index_of_the_broadcasts_and_none_of_their_rows(cast, four):
    asked = []
    listener = lambda *args: asked.append(args[2:4])  # noqa: E731
    sqlalchemy.event.listen(db.engine, "before_cursor_execute", listener)
    try:
        Inbox(cast["bob"].viewer, NOW).count_views()
    finally:
        sqlalchemy.event.remove(db.engine, "before_cursor_execute", listener)
    statement, values = asked[-1]
    plan = [row.detail for row in db.session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert [step.split(" (")[0] for step in plan if " broadcasts " in step] == [
        "SEARCH broadcasts USING COVERING INDEX ix_broadcasts_counting"
    ]


def test_status_is_text_of_the_hot_statements(cast):
    """SQLite plans a statement anew for each value that is bound to what a partial index is about."""
    for query in (Inbox._item_query, EndedInbox._item_query, inbox._id_query, inbox._counts_query):
        statement = str(query.compile(dialect=db.engine.dialect))
        assert "broadcasts.status = '" in statement
        assert statement.count("broadcasts.status = ") == statement.count("broadcasts.status = '")
