"""An acknowledgement belongs to one revision: which text a user confirmed, and whether it still counts."""

import pytest

from broadcast.actions import broadcasts as sending
from broadcast.actions import edits, receipts, retention
from broadcast.base.errors import AcknowledgedTextChanged, Invalid
from broadcast.domain import clock
from broadcast.domain.message import Link
from broadcast.domain.revisions import MAX_UNACKNOWLEDGED_TEXTS, hash_text
from broadcast.store import acknowledged_revisions, broadcast_stats, broadcasts
from broadcast.store.broadcast_stats import RevisionStats
from broadcast.store.database import db
from broadcast.store.inbox import Inbox, InboxFilters
from tests.support.builders import build_message, publish_message

FIRST, SECOND = "The lifts stand still.", "The lifts run."


@pytest.fixture
def asked(cast) -> int:
    """A message to everybody that asks for an acknowledgement."""
    return publish_message(cast["alice"], build_message(requiresAck=True, content=FIRST))


def edit(broadcast_id: int, by, *, again: bool = False, **changes) -> None:
    changes = changes or {"content": SECOND}
    edits.edit(broadcast_id, changes, version=None, by=by, now=clock.now(), acknowledge_again=again)


def acknowledge(broadcast_id: int, by, *, seen: int | None = None):
    on_screen = None if seen is None else {broadcast_id: seen}
    return receipts.acknowledge([broadcast_id], by=by, now=clock.now(), seen_revisions=on_screen)


def delivery(broadcast_id: int, by):
    db.session.rollback()
    rows = broadcast_stats.list_recipient_progress(broadcasts.get(broadcast_id), limit=9)
    return next(row for row in rows if row.user_id == by.user_id)


def item(broadcast_id: int, by):
    db.session.rollback()
    return Inbox(by.viewer, clock.now()).find(broadcast_id)


def test_receipt_keeps_the_revision_and_the_hash_of_its_text(cast, asked):
    acknowledge(asked, cast["bob"])
    given = delivery(asked, cast["bob"]).acknowledged
    assert (given.revision, given.hash) == (1, hash_text("Lifts", FIRST, []))
    edit(asked, cast["alice"])
    acknowledge(asked, cast["charlie"])
    given = delivery(asked, cast["charlie"]).acknowledged
    assert (given.revision, given.hash) == (2, hash_text("Lifts", SECOND, []))


def test_after_a_correction_acknowledgements_stand_and_say_of_which_revision(cast, asked):
    acknowledge(asked, cast["bob"])
    edit(asked, cast["alice"])
    assert not item(asked, cast["bob"]).needs_ack
    assert delivery(asked, cast["bob"]).acknowledged.revision == 1
    acknowledge(asked, cast["charlie"])
    assert broadcast_stats.count_by_revision(broadcasts.get(asked)) == [
        RevisionStats(2, 1, True, True),
        RevisionStats(1, 1, True, True),
    ]


def test_whoever_is_asked_again_owes_it_until_they_acknowledge_the_new_text(cast, asked):
    bob = cast["bob"]
    acknowledge(asked, bob)
    edit(asked, cast["alice"], again=True)
    owed = item(asked, bob)
    assert (owed.needs_ack, owed.is_read, owed.card.ack_revision) == (True, False, 2)
    assert [one.card.id for one in Inbox(bob.viewer, clock.now()).list_to_acknowledge(InboxFilters(), limit=9)] == [
        asked
    ]
    before = delivery(asked, bob)
    assert (before.acknowledged, [one.revision for one in before.earlier]) == (None, [1])
    assert broadcast_stats.count_by_revision(broadcasts.get(asked)) == [RevisionStats(1, 1, False, True)]
    acknowledge(asked, bob)
    after = delivery(asked, bob)
    assert (after.acknowledged.revision, [one.revision for one in after.earlier]) == (2, [1])
    assert after.earlier[0].hash == hash_text("Lifts", FIRST, [])
    assert not item(asked, bob).needs_ack


def test_words_that_are_no_longer_asked_for_are_not_acknowledged_in_silence(cast, asked):
    edit(asked, cast["alice"], again=True)
    for unknown in (1, 3):
        with pytest.raises(AcknowledgedTextChanged):
            acknowledge(asked, cast["bob"], seen=unknown)
    assert item(asked, cast["bob"]).needs_ack
    acknowledge(asked, cast["bob"], seen=2)
    assert not item(asked, cast["bob"]).needs_ack


def test_corrected_words_still_on_the_screen_are_acknowledged_as_what_they_were(cast, asked):
    edit(asked, cast["alice"])
    acknowledge(asked, cast["bob"], seen=1)
    given = delivery(asked, cast["bob"]).acknowledged
    assert (given.revision, given.hash) == (1, hash_text("Lifts", FIRST, []))
    assert acknowledged_revisions.get_text(asked, 1).is_acknowledged


def test_of_several_those_that_changed_are_refused_and_named(cast, asked):
    other = publish_message(cast["alice"], build_message(requiresAck=True))
    edit(asked, cast["alice"], again=True)
    done = receipts.acknowledge([asked, other], by=cast["bob"], now=clock.now(), seen_revisions={asked: 1, other: 1})
    assert (done.ids, done.refused_ids) == ([other], (asked,))


def test_acknowledging_twice_changes_nothing(cast, asked):
    acknowledge(asked, cast["bob"])
    first = delivery(asked, cast["bob"])
    edit(asked, cast["alice"])
    assert acknowledge(asked, cast["bob"], seen=2).ids == []
    assert delivery(asked, cast["bob"]) == first


def test_acknowledged_texts_are_kept_as_long_as_the_receipts_and_not_as_long_as_the_log(cast, asked):
    acknowledge(asked, cast["bob"])
    edit(asked, cast["alice"])
    later = clock.now().replace(year=clock.now().year + 1)
    retention.delete_expired(retention.RetentionPolicy(log_days=1, ended_days=0, receipts_days=1), now=later)
    text = acknowledged_revisions.get_text(asked, 1)
    assert (text.title, text.content, text.hash) == ("Lifts", FIRST, hash_text("Lifts", FIRST, []))
    sending.cancel(asked, reason="Over", by=cast["alice"], now=clock.now())
    retention.delete_expired(retention.RetentionPolicy(log_days=0, ended_days=0, receipts_days=1), now=later)
    db.session.rollback()
    assert acknowledged_revisions.get_text(asked, 1) is None
    assert broadcast_stats.list_recipient_progress(broadcasts.get(asked), limit=9)[0].acknowledged is None


def test_of_texts_that_nobody_acknowledged_only_the_newest_are_kept(cast, asked):
    acknowledge(asked, cast["bob"])
    for n in range(MAX_UNACKNOWLEDGED_TEXTS + 5):
        edit(asked, cast["alice"], content=f"Text {n}")
    db.session.rollback()
    kept = [n for n in range(1, MAX_UNACKNOWLEDGED_TEXTS + 7) if acknowledged_revisions.get_text(asked, n)]
    assert kept == [1, *range(6, MAX_UNACKNOWLEDGED_TEXTS + 6)]


def test_asking_again_needs_a_live_message_that_asks_at_all(cast):
    alice = cast["alice"]
    for raw in (build_message(), build_message(requiresAck=True, draft=True)):
        with pytest.raises(Invalid) as caught:
            edit(publish_message(alice, raw), alice, again=True)
        assert set(caught.value.fields) == {"acknowledgeAgain"}


@pytest.mark.parametrize("actions", [None, [{"label": "Plan", "url": "https://example.org/plan"}]])
def test_hash_is_of_title_text_and_links(cast, actions):
    broadcast_id = publish_message(cast["alice"], build_message(requiresAck=True, actions=actions))
    acknowledge(broadcast_id, cast["bob"])
    db.session.rollback()
    text = acknowledged_revisions.get_text(broadcast_id, 1)
    links = [Link(**link) for link in text.actions]
    assert text.hash == hash_text(text.title, text.content, links)
    assert text.hash != hash_text(text.title, text.content + " ", links)
