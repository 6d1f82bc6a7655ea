"""The console's queries for broadcasts."""

from datetime import timedelta

import pytest

from broadcast.actions import broadcasts as actions
from broadcast.actions import receipts as receipt_actions
from broadcast.domain import clock
from broadcast.domain.audience import EveryoneAudience, make_role_audience, make_user_audience
from broadcast.domain.lifecycle import Status
from broadcast.domain.stats import FunnelCounts
from broadcast.store import audiences, broadcast_totals, broadcasts, log, receipts
from broadcast.store.inbox import InboxFilters
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction
from tests.support.builders import build_message, build_role_message, build_user_message, publish_message

NOW = clock.now()


def steps(broadcast_id: int) -> FunnelCounts:
    return broadcast_totals.count_totals([broadcasts.get(broadcast_id)])[broadcast_id].targeted


def test_audience_is_read_back(cast):
    alice, bob = cast["alice"], cast["bob"]
    for raw, audience in [
        (build_message(), EveryoneAudience()),
        (build_role_message("ops", "admin"), make_role_audience(["ops", "admin"])),
        (build_user_message("bob", alice.user_id), make_user_audience([alice.user_id, bob.user_id])),
    ]:
        assert audiences.get_audience(broadcasts.get(publish_message(alice, raw))) == audience


def test_each_filter_shows_its_broadcasts(cast):
    alice, later = cast["alice"], clock.to_rfc3339(clock.now() + timedelta(hours=1))
    draft, planned = (
        publish_message(alice, build_message(draft=True)),
        publish_message(alice, build_message(scheduledAt=later)),
    )
    live, recalled = publish_message(alice), publish_message(alice)
    actions.cancel(recalled, reason="Wrong", by=alice, now=NOW)
    expected = {"draft": [draft], "scheduled": [planned], "active": [live], "ended": [recalled]}
    for name, ids in (expected | {"all": [recalled, live, planned, draft]}).items():
        assert [b.id for b in broadcasts.list_page(name)] == ids


def test_paging_goes_back_without_gap(cast):
    ids = [publish_message(cast["alice"]) for _ in range(5)]
    first = [b.id for b in broadcasts.list_page("all", limit=2)]
    rest = [b.id for b in broadcasts.list_page("all", before=first[-1], limit=9)]
    assert first + rest == ids[::-1]


@pytest.mark.parametrize("sign", ["%", "_", "\\"])
def test_search_takes_every_sign_literally(cast, sign):
    wanted = publish_message(cast["alice"], build_message(content=f"with {sign} in it"))
    publish_message(cast["alice"], build_message(content="axb"))
    assert [b.id for b in broadcasts.list_page("all", q=sign)] == [wanted]


def test_stats_count_people_not_devices_or_repeats(cast):
    """Delivered twice, read twice, and the steps include each other."""
    broadcast_id = publish_message(cast["alice"])
    bob, charlie = cast["bob"].user_id, cast["charlie"].user_id
    for _ in range(2):
        with write_transaction() as session:
            receipts.set_timestamp(session, [(broadcast_id, bob), (broadcast_id, charlie)], "delivered_at", at=NOW)
            receipts.set_timestamp(session, [(broadcast_id, bob)], "read_at", at=NOW)
    assert steps(broadcast_id) == FunnelCounts(recipients=3, delivered=2, seen=1, read=1, acknowledged=0)


def test_acknowledged_counts_as_read_and_seen(cast):
    broadcast_id = publish_message(cast["alice"])
    with write_transaction() as session:
        receipts.set_timestamp(session, [(broadcast_id, cast["bob"].user_id)], "acked_at", at=NOW)
    assert steps(broadcast_id) == FunnelCounts(3, 1, 1, 1, 1)


def test_mark_all_read_counts_for_the_sender(cast):
    broadcast_id = publish_message(cast["alice"])
    receipt_actions.mark_all_read(InboxFilters(), through=log.get_head().seq, by=cast["bob"], now=NOW)
    assert steps(broadcast_id).read == 1


def test_first_moment_of_a_receipt_stays(cast):
    """I9: marking again changes nothing."""
    broadcast_id = publish_message(cast["alice"])
    pair, later = (broadcast_id, cast["bob"].user_id), NOW + timedelta(hours=1)
    for moment in (NOW, later):
        with write_transaction() as session:
            receipts.set_timestamp(session, [pair], "read_at", at=moment)
            receipts.set_timestamp(session, [pair], "delivered_at", at=moment)
    with write_transaction() as session:
        row = session.get(receipts.Receipt, pair)
        assert (row.read_at, row.delivered_at) == (NOW, NOW)


def test_reading_again_looks_at_when_that_broadcast_was_renewed_and_at_no_other(cast):
    """On PostgreSQL it failed, on SQLite it looked at whichever came first."""
    renewed, other = (publish_message(cast["alice"]) for _ in range(2))
    pairs, later = [(one, cast["bob"].user_id) for one in (renewed, other)], NOW + timedelta(hours=2)
    with write_transaction() as session:
        receipts.set_timestamp(session, pairs, "read_at", at=NOW)
        session.get(Broadcast, renewed).renewed_at = NOW + timedelta(hours=1)
    with write_transaction() as session:
        receipts.set_timestamp(session, pairs, "read_at", at=later)
        assert [session.get(receipts.Receipt, pair).read_at for pair in pairs] == [later, NOW]


def test_watermark_never_goes_back(cast):
    bob = cast["bob"].user_id
    for through in (5, 3):
        with write_transaction() as session:
            receipts.advance_watermark(session, bob, through=through, at=NOW)
    with write_transaction() as session:
        assert session.get(receipts.User, bob).read_through_seq == 5


def test_due_and_next_due(cast):
    alice, now = cast["alice"], clock.now()
    in_an_hour, in_two = now + timedelta(hours=1), now + timedelta(hours=2)
    assert broadcasts.get_next_due_at() is None
    live = publish_message(alice, build_message(expiresAt=clock.to_rfc3339(in_two)))
    planned = publish_message(alice, build_message(scheduledAt=clock.to_rfc3339(in_an_hour)))
    assert broadcasts.get_next_due_at() == clock.parse_rfc3339(clock.to_rfc3339(in_an_hour))
    assert [broadcasts.list_due_ids(status, now) for status in (Status.SCHEDULED, Status.ACTIVE)] == [[], []]
    assert [broadcasts.list_due_ids(status, in_two) for status in (Status.SCHEDULED, Status.ACTIVE)] == [
        [planned],
        [live],
    ]
    assert broadcasts.list_due_ids(Status.SCHEDULED, in_two, excluded_ids=[planned]) == []
