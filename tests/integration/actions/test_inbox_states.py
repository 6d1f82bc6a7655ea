"""Unread, archived, snoozed, acknowledged, and back: what the user sees, and what the sender's analytics keep."""

from datetime import timedelta

import pytest

from broadcast.actions import receipts as actions
from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.bus.protocol import BUS
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.store import broadcast_totals, broadcasts, log
from broadcast.store.database import db
from broadcast.store.inbox import Inbox, InboxFilters
from broadcast.worker import scheduler
from tests.support.builders import build_message, build_role_message, count_rows, publish_message

NOW = clock.now()
HOUR = timedelta(hours=1)


def shown(by: Actor, view: str = "inbox", *, now=NOW) -> list[str]:
    db.session.rollback()
    return [item.card.title for item in Inbox(by.viewer, now).list_page(InboxFilters(view))]


def unread(by: Actor, *, now=NOW) -> list[str]:
    assert Inbox(by.viewer, now).count_unread().count == len(shown(by, "unread", now=now))
    return shown(by, "unread", now=now)


@pytest.fixture
def bob(cast) -> Actor:
    return cast["bob"]


@pytest.fixture
def three(cast) -> dict[str, int]:
    return {title: publish_message(cast["alice"], build_message(title=title)) for title in ("one", "two", "three")}


@pytest.fixture
def signals(in_app, monkeypatch) -> list[dict]:
    heard: list = []
    monkeypatch.setattr(BUS.of(in_app), "send_signal", lambda name, body: heard.append(body))
    return heard


def test_i9_unread_again_outweighs_reading_and_the_watermark_until_it_is_read(bob, three):
    """I9"""
    actions.mark_read([three["one"]], by=bob, now=NOW)
    actions.mark_all_read(InboxFilters(), through=log.get_head().seq, by=bob, now=NOW)
    actions.mark_unread([three["one"], three["two"]], by=bob, now=NOW)
    assert unread(bob) == ["two", "one"]
    [figures] = broadcast_totals.count_totals([broadcasts.get(three["one"])]).values()
    assert figures.targeted.read == 1  # the sender's figures keep the reading
    actions.mark_read([three["one"]], by=bob, now=NOW)
    assert unread(bob) == ["two"]
    actions.mark_all_read(InboxFilters(), through=log.get_head().seq, by=bob, now=NOW)
    assert unread(bob) == []


def test_archived_leaves_inbox_and_count_and_keeps_whether_it_was_read(bob, three):
    actions.archive([three["one"], three["two"]], by=bob, now=NOW)
    assert (shown(bob), unread(bob), shown(bob, "archived")) == (["three"], ["three"], ["two", "one"])
    actions.mark_all_read(InboxFilters(), through=log.get_head().seq, by=bob, now=NOW)
    actions.unarchive([three["one"]], by=bob, now=NOW)
    assert (shown(bob), unread(bob)) == (["three", "one"], ["one"])  # nobody was shown it when all were marked


def test_snoozed_message_returns_unread_at_its_time_even_before_the_clock_runs(bob, three):
    actions.mark_read([three["one"]], by=bob, now=NOW)
    actions.snooze([three["one"]], until=NOW + HOUR, by=bob, now=NOW)
    assert (shown(bob), shown(bob, "snoozed")) == (["three", "two"], ["one"])
    actions.mark_all_read(InboxFilters(), through=log.get_head().seq, by=bob, now=NOW)
    later = NOW + HOUR
    assert (shown(bob, now=later), unread(bob, now=later)) == (["three", "two", "one"], ["one"])
    assert shown(bob, "snoozed", now=later) == []
    assert Inbox(bob.viewer, later).find(three["one"]).is_back


def test_clock_tells_of_what_returned_once(bob, three, signals):
    actions.snooze([three["one"], three["two"]], until=NOW + HOUR, by=bob, now=NOW)
    signals.clear()
    assert scheduler.tick(NOW) == NOW + HOUR
    assert signals == []
    for _ in range(2):
        scheduler.tick(NOW + HOUR)
    told = {"user": bob.user_id, "kind": "returned", "ids": [three["one"], three["two"]], "version": 2}
    assert signals == [told]
    assert unread(bob, now=NOW + HOUR) == ["three", "two", "one"]


@pytest.mark.parametrize("after", [timedelta(0), -HOUR, timedelta(days=400)])
def test_snooze_ends_ahead_and_within_a_year(bob, three, after):
    with pytest.raises(Invalid):
        actions.snooze([three["one"]], until=NOW + after, by=bob, now=NOW)
    assert shown(bob, "snoozed") == []


def test_acknowledged_for_ever_and_read_with_it(bob, cast):
    broadcast_id = publish_message(cast["alice"], build_message(requiresAck=True))
    assert [i.card.id for i in Inbox(bob.viewer, NOW).list_to_acknowledge(InboxFilters(), limit=9)] == [broadcast_id]
    for moment in (NOW, NOW + HOUR):
        actions.acknowledge([broadcast_id], by=bob, now=moment)
    item = Inbox(bob.viewer, NOW).find(broadcast_id)
    assert (item.acked_at, item.is_read, item.needs_ack) == (NOW, True, False)
    assert Inbox(bob.viewer, NOW).list_to_acknowledge(InboxFilters(), limit=9) == []


def test_what_must_be_acknowledged_is_neither_archived_before_nor_snoozed_past_its_time(bob, cast):
    due = clock.to_rfc3339(NOW + HOUR)
    calm = publish_message(cast["alice"], build_message(requiresAck=True, ackDueAt=due))
    urgent = publish_message(cast["alice"], build_message(requiresAck=True, priority="URGENT"))
    plain = publish_message(cast["alice"])
    with pytest.raises(Conflict, match="Acknowledge"):
        actions.archive([calm], by=bob, now=NOW)
    with pytest.raises(Conflict, match="before that time"):
        actions.snooze([calm], until=NOW + 2 * HOUR, by=bob, now=NOW)
    with pytest.raises(Conflict, match="urgent"):
        actions.snooze([urgent], until=NOW + timedelta(minutes=5), by=bob, now=NOW)
    with pytest.raises(Conflict, match="does not ask for an acknowledgement"):
        actions.acknowledge([plain], by=bob, now=NOW)
    actions.snooze([calm], until=NOW + HOUR / 2, by=bob, now=NOW)
    assert actions.archive([urgent, plain], by=bob, now=NOW).ids == [plain]  # of many, the others are done


@pytest.mark.parametrize("verb", [actions.mark_unread, actions.archive, actions.unarchive, actions.acknowledge])
def test_message_of_others_is_not_found(cast, verb):
    """I3"""
    theirs = publish_message(cast["alice"], build_role_message("ops"))
    before = count_rows()
    with pytest.raises(NotFound):
        verb([theirs], by=cast["charlie"], now=NOW)
    with pytest.raises(NotFound):
        actions.snooze([theirs], until=NOW + HOUR, by=cast["charlie"], now=NOW)
    assert count_rows() == before


# ---- undo


def test_undo_puts_back_what_was_before(bob, three):
    actions.mark_read([three["one"]], by=bob, now=NOW)
    actions.snooze([three["two"]], until=NOW + HOUR, by=bob, now=NOW)
    before = {view: shown(bob, view) for view in ("inbox", "unread", "archived", "snoozed")}
    acts = [
        lambda: actions.archive(list(three.values()), by=bob, now=NOW),
        lambda: actions.snooze(list(three.values()), until=NOW + 2 * HOUR, by=bob, now=NOW),
        lambda: actions.mark_all_read(InboxFilters(), through=log.get_head().seq, by=bob, now=NOW),
        lambda: actions.mark_all_read(InboxFilters(q="three"), through=log.get_head().seq, by=bob, now=NOW),
    ]
    for act in acts:
        done = act()
        assert {view: shown(bob, view) for view in before} != before
        actions.undo(done.undo_key, by=bob, now=NOW)
        assert {view: shown(bob, view) for view in before} == before


def test_undo_of_a_watermark_leaves_what_was_read_by_hand(bob, three):
    actions.mark_unread([three["one"]], by=bob, now=NOW)
    done = actions.mark_all_read(InboxFilters(), through=log.get_head().seq, by=bob, now=NOW)
    actions.mark_unread([three["two"]], by=bob, now=NOW)
    actions.mark_read([three["two"]], by=bob, now=NOW)
    actions.undo(done.undo_key, by=bob, now=NOW)
    assert unread(bob) == ["three", "one"]


def test_only_the_newest_act_of_the_same_person_is_undone_and_only_once_and_soon(bob, cast, three):
    first = actions.archive([three["one"]], by=bob, now=NOW)
    second = actions.archive([three["two"]], by=bob, now=NOW)
    for key, by, now in (
        (first.undo_key, bob, NOW),
        ("", bob, NOW),
        (second.undo_key, cast["charlie"], NOW),
        (second.undo_key, bob, NOW + actions.UNDO_WINDOW + timedelta(seconds=1)),
    ):
        with pytest.raises(Conflict, match="too late"):
            actions.undo(key, by=by, now=now)
    actions.undo(second.undo_key, by=bob, now=NOW)
    with pytest.raises(Conflict):
        actions.undo(second.undo_key, by=bob, now=NOW)
    assert shown(bob, "archived") == ["one"]


# ---- versions


def test_i11_every_change_raises_the_version_and_is_told_and_nothing_else_does(bob, three, signals):
    """I11: a page that missed one receipt sees the gap at the next."""
    id_ = three["one"]
    done = [
        actions.mark_read([id_], by=bob, now=NOW),
        actions.mark_unread([id_], by=bob, now=NOW),
        actions.archive([id_], by=bob, now=NOW),
    ]
    done.append(actions.undo(done[-1].undo_key, by=bob, now=NOW))
    done.append(actions.snooze([id_], until=NOW + HOUR, by=bob, now=NOW))
    done.append(actions.unarchive([id_], by=bob, now=NOW))
    done.append(actions.mark_all_read(InboxFilters(), through=log.get_head().seq, by=bob, now=NOW))
    assert [d.version for d in done] == list(range(1, 8))
    assert [(s["kind"], s["version"]) for s in signals] == [(d.kind, d.version) for d in done]
    assert Inbox(bob.viewer, NOW).count_unread().version == Inbox(bob.viewer, NOW).count_views().version == 7
    for idle in (
        lambda: actions.mark_read([id_], by=bob, now=NOW),
        lambda: actions.unarchive([id_], by=bob, now=NOW),
        lambda: actions.mark_all_read(InboxFilters(), through=99, by=bob, now=NOW),
    ):
        assert idle().version == 0
    assert len(signals) == 7


def test_counts_of_the_views_are_of_one_moment(bob, three):
    actions.archive([three["one"]], by=bob, now=NOW)
    actions.snooze([three["two"]], until=NOW + HOUR, by=bob, now=NOW)
    counts = Inbox(bob.viewer, NOW).count_views()
    assert (counts.inbox, counts.unread, counts.archived, counts.snoozed) == (1, 1, 1, 1)
    assert (counts.as_of, counts.version) == (log.get_head().seq, 2)


def test_long_receipt_is_told_without_its_ids(bob, cast, signals):
    ids = [publish_message(cast["alice"]) for _ in range(101)]
    actions.archive(ids, by=bob, now=NOW)
    assert signals[-1]["ids"] == []
