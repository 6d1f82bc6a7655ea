"""The analytics of a broadcast: distinct users at every step, how soon, by role, and who is missing, worst first."""

from datetime import datetime, timedelta

import pytest

from broadcast.actions import broadcasts as sending
from broadcast.actions import edits
from broadcast.actions import receipts as acts
from broadcast.actions import users as actions
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.domain.stats import BroadcastTotals, FunnelCounts
from broadcast.store import broadcast_stats, broadcast_totals, broadcasts, receipts
from broadcast.store.broadcast_stats import RoleStats
from broadcast.store.fast.count_cache import COUNT_CACHE, CountCache
from broadcast.store.inbox import InboxFilters
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction
from tests.support.builders import build_message, build_role_message, build_user_message, load_actor, publish_message

NOW = clock.now()


@pytest.fixture(autouse=True)
def uncached_counts(in_app):
    COUNT_CACHE.attach(in_app, CountCache(clock=lambda: 0.0))  # nothing is slow, so nothing is kept


def later(**length: float) -> datetime:
    return NOW + timedelta(**length)


def mark(broadcast_id: int, column: str, *usernames: str, at: datetime = NOW) -> None:
    with write_transaction() as session:
        receipts.set_timestamp(session, [(broadcast_id, load_actor(name).user_id) for name in usernames], column, at=at)


def found(broadcast_id: int) -> Broadcast:
    return broadcasts.get(broadcast_id)


def counted(broadcast_id: int) -> BroadcastTotals:
    return broadcast_totals.count_totals([found(broadcast_id)])[broadcast_id]


def by_role(broadcast_id: int) -> list[RoleStats]:
    return broadcast_stats.count_by_role(found(broadcast_id), counted(broadcast_id))


def stages(broadcast_id: int, **options) -> list[tuple[str, str]]:
    return [
        (one.username, one.stage)
        for one in broadcast_stats.list_missing(found(broadcast_id), **({"limit": 50} | options))
    ]


def test_reconnects_and_workers_count_a_person_once(cast):
    broadcast_id = publish_message(cast["alice"], now=NOW)
    for _ in range(3):
        mark(broadcast_id, "delivered_at", "bob", "alice")
        mark(broadcast_id, "read_at", "bob")
    assert counted(broadcast_id).targeted == FunnelCounts(3, 2, 1, 1, 0)


def test_never_more_delivered_than_targeted(cast):
    """Whoever gets the role later gets the message too, and is then among the targeted."""
    broadcast_id = publish_message(cast["alice"], build_role_message("ops"), now=NOW)
    actions.set_roles(cast["charlie"].user_id, ["ops"], by=SYSTEM, now=NOW)
    mark(broadcast_id, "delivered_at", "bob", "charlie")
    assert counted(broadcast_id).targeted == FunnelCounts(2, 2)


def test_pace_tells_half_and_nine_in_ten_and_the_curve(cast):
    broadcast_id = publish_message(cast["alice"], now=NOW)
    mark(broadcast_id, "delivered_at", "alice", "bob", "charlie", at=later(seconds=2))
    for username, at in (("alice", later(seconds=30)), ("bob", later(minutes=10)), ("charlie", later(hours=2))):
        mark(broadcast_id, "read_at", username, at=at)
    pace = broadcast_stats.measure_read_latency(found(broadcast_id), now=later(hours=3))
    assert (pace.p50, pace.p90) == (timedelta(minutes=10), timedelta(hours=2))
    assert pace.delivered == [3, 3, 3, 3, 3]  # after 1, 5, 15 min, 1 h, and now
    assert pace.read == [1, 1, 2, 2, 3]


def test_mark_all_read_counts_as_the_moment_it_was_pressed(cast):
    broadcast_id = publish_message(cast["alice"], now=NOW)
    acts.mark_all_read(InboxFilters(), through=10, by=cast["bob"], now=later(minutes=4))
    pace = broadcast_stats.measure_read_latency(found(broadcast_id), now=later(minutes=6))
    assert (pace.p50, pace.read) == (timedelta(minutes=4), [0, 1, 1])


def test_what_was_seen_by_marking_all_read_stays_seen_when_it_is_shown_again(cast):
    broadcast_id = publish_message(cast["alice"], now=NOW)
    mark(broadcast_id, "delivered_at", "bob", "charlie")
    acts.mark_all_read(InboxFilters(), through=10, by=cast["bob"], now=later(minutes=4))
    assert counted(broadcast_id).targeted == FunnelCounts(3, 2, 1, 1, 0)
    for minutes in (5, 6):
        again = {"version": None, "by": cast["alice"], "now": later(minutes=minutes), "notify_again": True}
        edits.edit(broadcast_id, {"title": f"Again {minutes}"}, **again)
        assert counted(broadcast_id).targeted == FunnelCounts(3, 2, 1, 0, 0)
    [row] = [
        row for row in broadcast_stats.list_recipient_progress(found(broadcast_id), limit=9) if row.username == "bob"
    ]
    assert row.seen_at == later(minutes=4)


def test_nobody_has_read_it_yet(cast):
    pace = broadcast_stats.measure_read_latency(found(publish_message(cast["alice"], now=NOW)), now=later(seconds=5))
    assert (pace.p50, pace.p90, pace.read) == (None, None, [0])


def test_roles_are_counted_with_their_people(cast):
    actions.set_roles(cast["charlie"].user_id, ["ops", "sales"], by=SYSTEM, now=NOW)
    everyone = publish_message(cast["alice"], now=NOW)
    mark(everyone, "delivered_at", "bob", "charlie")
    mark(everyone, "acked_at", "charlie")
    assert by_role(everyone) == [
        RoleStats("ops", 2, 2, 1, 1), RoleStats("admin", 1, 0, 0, 0), RoleStats("sales", 1, 1, 1, 1)
    ]  # fmt: skip
    assert by_role(publish_message(cast["alice"], build_role_message("sales"))) == [
        RoleStats("ops", 1, 0, 0, 0), RoleStats("sales", 1, 0, 0, 0)
    ]  # fmt: skip
    assert by_role(publish_message(cast["alice"], build_user_message("bob"))) == [RoleStats("ops", 1, 0, 0, 0)]


def test_missing_are_told_worst_first_and_in_pages(cast):
    ids = [actions.create_user(f"p{n}", None, by=SYSTEM, now=NOW) for n in range(4)]
    broadcast_id = publish_message(cast["alice"], now=NOW)
    mark(broadcast_id, "delivered_at", "alice", "bob", "charlie", "p0")
    mark(broadcast_id, "first_seen_at", "bob", "charlie")
    mark(broadcast_id, "read_at", "charlie")
    worst = [(f"p{n}", "undelivered") for n in (1, 2, 3)]
    whole = [*worst, ("alice", "unseen"), ("p0", "unseen"), ("bob", "unread")]
    assert stages(broadcast_id) == whole
    assert stages(broadcast_id, limit=2) == whole[:2]
    assert stages(broadcast_id, after=(0, ids[2]), limit=2) == whole[2:4]
    assert stages(broadcast_id, after=(2, 0)) == whole[5:]
    assert counted(broadcast_id).missing == 6


@pytest.mark.parametrize(
    ("raw", "missing"),
    [
        (build_role_message("ops"), ["bob"]),
        (build_user_message("charlie", "bob"), ["bob", "charlie"]),
        (build_message(), None),
    ],
)
def test_missing_are_only_people_of_the_audience_with_an_open_account(cast, raw, missing):
    broadcast_id = publish_message(cast["alice"], raw, now=NOW)
    assert [name for name, _ in stages(broadcast_id)] == (missing or ["alice", "bob", "charlie"])
    actions.disable_user(cast["bob"].user_id, by=SYSTEM, now=NOW)
    assert "bob" not in dict(stages(broadcast_id))
    assert counted(broadcast_id).missing == len(stages(broadcast_id))


def test_acknowledgement_is_owed_until_it_is_given(cast):
    broadcast_id = publish_message(cast["alice"], build_message(requiresAck=True), now=NOW)
    mark(broadcast_id, "read_at", "alice", "bob")
    mark(broadcast_id, "acked_at", "alice")
    assert stages(broadcast_id) == [("charlie", "undelivered"), ("bob", "unacknowledged")]
    assert counted(broadcast_id).missing == 2


def test_what_was_read_before_it_was_shown_again_does_not_count(cast):
    broadcast_id = publish_message(cast["alice"], now=NOW)
    mark(broadcast_id, "read_at", "bob")
    edits.edit(broadcast_id, {"title": "New"}, version=None, by=cast["alice"], now=later(minutes=5), notify_again=True)
    steps = counted(broadcast_id).targeted
    assert (steps.delivered, steps.seen, steps.read) == (1, 1, 0)
    assert broadcast_stats.measure_read_latency(found(broadcast_id), now=later(minutes=6)).read[-1] == 0
    assert "bob" in dict(stages(broadcast_id))


def test_deliveries_are_sorted_with_the_missing_last(cast):
    broadcast_id = publish_message(cast["alice"], now=NOW)
    mark(broadcast_id, "read_at", "charlie", at=later(minutes=1))
    mark(broadcast_id, "read_at", "bob", at=later(minutes=2))

    def names(**options) -> list[str]:
        return [
            row.username
            for row in broadcast_stats.list_recipient_progress(found(broadcast_id), **({"limit": 9} | options))
        ]

    assert names() == ["alice", "bob", "charlie"]
    assert names(sort="read") == ["charlie", "bob", "alice"]
    assert names(sort="read", descending=True) == ["bob", "charlie", "alice"]
    assert names(sort="name", descending=True, offset=1, limit=1) == ["bob"]
    assert names(after=cast["alice"].user_id) == ["bob", "charlie"]


# ---- people who come and go


def test_whoever_joins_later_is_targeted_and_missing(cast):
    broadcast_id = publish_message(cast["alice"], build_role_message("ops", requiresAck=True), now=NOW)
    acts.acknowledge([broadcast_id], by=cast["bob"], now=later(minutes=1))
    actions.set_roles(cast["charlie"].user_id, ["ops"], by=SYSTEM, now=later(minutes=2))
    whole = counted(broadcast_id)
    assert (whole.targeted.recipients, whole.sent_to, whole.count_done(whole.targeted), whole.missing) == (2, 1, 1, 1)
    assert stages(broadcast_id) == [("charlie", "undelivered")]


@pytest.mark.parametrize("reached", [True, False])
@pytest.mark.parametrize(
    "leave",
    [
        lambda user_id: actions.disable_user(user_id, by=SYSTEM, now=later(minutes=2)),
        lambda user_id: actions.set_roles(user_id, [], by=SYSTEM, now=later(minutes=2)),
    ],
)
def test_whoever_leaves_is_no_longer_here_and_keeps_a_row(cast, leave, reached):
    actions.set_roles(cast["charlie"].user_id, ["ops"], by=SYSTEM, now=NOW)
    broadcast_id = publish_message(cast["alice"], build_role_message("ops"), now=NOW)
    if reached:
        mark(broadcast_id, "read_at", "charlie")
    leave(cast["charlie"].user_id)
    whole = counted(broadcast_id)
    assert (whole.targeted.recipients, whole.gone.recipients, whole.gone.read, whole.missing) == (2, 1, int(reached), 1)
    rows = {
        row.username: row.is_current_member
        for row in broadcast_stats.list_recipient_progress(found(broadcast_id), limit=9)
    }
    assert rows == {"bob": True, "charlie": False}
    assert [role.name for role in by_role(broadcast_id)] == ["ops", broadcast_stats.NO_LONGER_HERE]
    assert stages(broadcast_id) == [("bob", "undelivered")]


def test_whoever_left_before_it_was_sent_was_not_targeted(cast):
    actions.set_roles(cast["charlie"].user_id, ["ops"], by=SYSTEM, now=NOW)
    actions.set_roles(cast["charlie"].user_id, [], by=SYSTEM, now=NOW)
    assert counted(publish_message(cast["alice"], build_role_message("ops"), now=NOW)).targeted == FunnelCounts(1)


def test_whoever_had_one_of_two_roles_was_not_in_an_audience_of_both(cast):
    actions.set_roles(cast["charlie"].user_id, ["ops", "sales"], by=SYSTEM, now=NOW)
    broadcast_id = publish_message(cast["alice"], build_role_message("ops", "sales", targetMatch="ALL"), now=NOW)
    for user_id in (cast["bob"].user_id, cast["charlie"].user_id):
        actions.disable_user(user_id, by=SYSTEM, now=later(minutes=1))
    assert (counted(broadcast_id).targeted.recipients, counted(broadcast_id).gone.recipients) == (1, 1)


def test_whoever_comes_back_is_here_again(cast):
    broadcast_id = publish_message(cast["alice"], now=NOW)
    actions.disable_user(cast["bob"].user_id, by=SYSTEM, now=later(minutes=1))
    actions.enable_user(cast["bob"].user_id, by=SYSTEM, now=later(minutes=2))
    whole = counted(broadcast_id)
    assert (whole.targeted.recipients, whole.gone.recipients, whole.missing) == (3, 0, 3)


def test_whoever_comes_when_it_is_over_was_never_asked(cast):
    broadcast_id = publish_message(cast["alice"], build_message(requiresAck=True))
    sending.cancel(broadcast_id, reason="Over", by=cast["alice"], now=clock.now())
    actions.create_user("dora", None, roles=["ops"], by=SYSTEM, now=clock.now())
    actions.set_roles(cast["charlie"].user_id, ["ops"], by=SYSTEM, now=clock.now())
    assert counted(broadcast_id).targeted == FunnelCounts(3)
    assert [row.username for row in broadcast_stats.list_recipient_progress(found(broadcast_id), limit=9)] == [
        "alice",
        "bob",
        "charlie",
    ]
    assert "dora" not in dict(stages(broadcast_id))
    assert {role.name: role.people for role in by_role(broadcast_id)} == {"admin": 1, "ops": 2}
    assert counted(broadcast_id).missing == len(stages(broadcast_id)) == 3


def test_what_was_marked_read_before_it_reached_somebody_is_not_read(cast):
    """A watermark passes what somebody gets to see only by a later role."""
    broadcast_id = publish_message(cast["alice"], build_role_message("ops"), now=NOW)
    publish_message(cast["alice"])
    acts.mark_all_read(InboxFilters(), through=99, by=cast["charlie"], now=later(minutes=1))
    actions.set_roles(cast["charlie"].user_id, ["ops"], by=SYSTEM, now=later(minutes=2))
    assert counted(broadcast_id).targeted == FunnelCounts(2)
    assert [row.read_at for row in broadcast_stats.list_recipient_progress(found(broadcast_id), limit=9)] == [
        None,
        None,
    ]


def test_whoever_came_too_late_was_not_in_it_through_another_broadcast(cast):
    over, other = (
        publish_message(cast["alice"], build_role_message("ops")),
        publish_message(cast["alice"], build_message(targetType="ROLE", targetIds=["admin"])),
    )
    sending.cancel(over, reason="Over", by=cast["alice"], now=clock.now())
    for roles in (["admin"], ["ops"]):
        actions.set_roles(cast["charlie"].user_id, roles, by=SYSTEM, now=clock.now())
    assert counted(over).targeted == FunnelCounts(1)
    assert counted(other).targeted == FunnelCounts(2)
