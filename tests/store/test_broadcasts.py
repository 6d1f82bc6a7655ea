"""What the console asks about broadcasts."""

from datetime import timedelta

import pytest

from broadcast.actions import broadcasts as actions
from broadcast.actions import receipts as receipt_actions
from broadcast.domain import clock
from broadcast.domain.audience import Everyone, roles, users
from broadcast.domain.lifecycle import Status
from broadcast.domain.stats import Steps
from broadcast.store import broadcast_totals, broadcasts, log, receipts
from broadcast.store.database import writing
from broadcast.store.inbox import Filters
from broadcast.store.models import Broadcast
from tests.acts import a_message, send, to_people, to_role

NOW = clock.now()


def steps(broadcast_id: int) -> Steps:
    return broadcast_totals.totals([broadcasts.by_id(broadcast_id)])[broadcast_id].targeted


def test_audience_is_read_back(cast):
    alice, bob = cast["alice"], cast["bob"]
    for raw, audience in [
        (a_message(), Everyone()),
        (to_role("ops", "admin"), roles(["ops", "admin"])),
        (to_people("bob", alice.user_id), users([alice.user_id, bob.user_id])),
    ]:
        assert broadcasts.audience(broadcasts.by_id(send(alice, raw))) == audience


def test_pages_and_counts_agree_for_every_filter(cast):
    alice, later = cast["alice"], clock.to_wire(clock.now() + timedelta(hours=1))
    draft, planned = send(alice, a_message(draft=True)), send(alice, a_message(scheduledAt=later))
    live, recalled = send(alice), send(alice)
    actions.cancel(recalled, reason="Wrong", by=alice, now=NOW)
    expected = {"draft": [draft], "scheduled": [planned], "active": [live], "ended": [recalled]}
    for name, ids in (expected | {"all": [recalled, live, planned, draft]}).items():
        assert [b.id for b in broadcasts.page(name)] == ids
        assert broadcasts.counts()[name] == len(ids)


def test_paging_goes_back_without_gap(cast):
    ids = [send(cast["alice"]) for _ in range(5)]
    first = [b.id for b in broadcasts.page("all", limit=2)]
    rest = [b.id for b in broadcasts.page("all", before=first[-1], limit=9)]
    assert first + rest == ids[::-1]


@pytest.mark.parametrize("sign", ["%", "_", "\\"])
def test_search_takes_every_sign_literally(cast, sign):
    wanted = send(cast["alice"], a_message(content=f"with {sign} in it"))
    send(cast["alice"], a_message(content="axb"))
    assert [b.id for b in broadcasts.page("all", q=sign)] == [wanted]
    assert broadcasts.counts(q=sign)["all"] == 1


def test_stats_count_people_not_devices_or_repeats(cast):
    """Delivered twice, read twice, and the steps include each other."""
    broadcast_id = send(cast["alice"])
    bob, charlie = cast["bob"].user_id, cast["charlie"].user_id
    for _ in range(2):
        with writing() as session:
            receipts.mark(session, [(broadcast_id, bob), (broadcast_id, charlie)], "delivered_at", at=NOW)
            receipts.mark(session, [(broadcast_id, bob)], "read_at", at=NOW)
    assert steps(broadcast_id) == Steps(people=3, delivered=2, seen=1, read=1, acknowledged=0)


def test_acknowledged_counts_as_read_and_seen(cast):
    broadcast_id = send(cast["alice"])
    with writing() as session:
        receipts.mark(session, [(broadcast_id, cast["bob"].user_id)], "acked_at", at=NOW)
    assert steps(broadcast_id) == Steps(3, 1, 1, 1, 1)


def test_mark_all_read_counts_for_the_sender(cast):
    broadcast_id = send(cast["alice"])
    receipt_actions.mark_all_read(Filters(), through=log.head().seq, by=cast["bob"], now=NOW)
    assert steps(broadcast_id).read == 1


def test_first_moment_of_a_receipt_stays(cast):
    """I9: marking again changes nothing."""
    broadcast_id = send(cast["alice"])
    pair, later = (broadcast_id, cast["bob"].user_id), NOW + timedelta(hours=1)
    for moment in (NOW, later):
        with writing() as session:
            receipts.mark(session, [pair], "read_at", at=moment)
            receipts.mark(session, [pair], "delivered_at", at=moment)
    with writing() as session:
        row = session.get(receipts.Receipt, pair)
        assert (row.read_at, row.delivered_at) == (NOW, NOW)


def test_reading_again_looks_at_when_that_broadcast_was_renewed_and_at_no_other(cast):
    """On PostgreSQL it failed, on SQLite it looked at whichever came first."""
    renewed, other = (send(cast["alice"]) for _ in range(2))
    pairs, later = [(one, cast["bob"].user_id) for one in (renewed, other)], NOW + timedelta(hours=2)
    with writing() as session:
        receipts.mark(session, pairs, "read_at", at=NOW)
        session.get(Broadcast, renewed).renewed_at = NOW + timedelta(hours=1)
    with writing() as session:
        receipts.mark(session, pairs, "read_at", at=later)
        assert [session.get(receipts.Receipt, pair).read_at for pair in pairs] == [later, NOW]


def test_watermark_never_goes_back(cast):
    bob = cast["bob"].user_id
    for through in (5, 3):
        with writing() as session:
            receipts.advance_watermark(session, bob, through=through, at=NOW)
    with writing() as session:
        assert session.get(receipts.User, bob).read_through_seq == 5


def test_due_and_next_due(cast):
    alice, now = cast["alice"], clock.now()
    in_an_hour, in_two = now + timedelta(hours=1), now + timedelta(hours=2)
    assert broadcasts.next_due_at() is None
    live = send(alice, a_message(expiresAt=clock.to_wire(in_two)))
    planned = send(alice, a_message(scheduledAt=clock.to_wire(in_an_hour)))
    assert broadcasts.next_due_at() == clock.from_wire(clock.to_wire(in_an_hour))
    assert [broadcasts.due(status, now) for status in (Status.SCHEDULED, Status.ACTIVE)] == [[], []]
    assert [broadcasts.due(status, in_two) for status in (Status.SCHEDULED, Status.ACTIVE)] == [[planned], [live]]
    assert broadcasts.due(Status.SCHEDULED, in_two, but_not=[planned]) == []
