"""How a broadcast lands: distinct people at every step, how soon, by role, and who is missing, worst first."""

from datetime import datetime, timedelta

import pytest

from broadcast.actions import edits
from broadcast.actions import people as actions
from broadcast.actions import receipts as acts
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import broadcasts, figures, receipts
from broadcast.store.database import writing
from broadcast.store.figures import OfRole
from broadcast.store.inbox import Filters
from broadcast.store.models import Broadcast
from tests.acts import a_message, actor, send, to_people, to_role

NOW = clock.now()


def later(**length: float) -> datetime:
    return NOW + timedelta(**length)


def mark(broadcast_id: int, column: str, *usernames: str, at: datetime = NOW) -> None:
    with writing() as session:
        receipts.mark(session, [(broadcast_id, actor(name).user_id) for name in usernames], column, at=at)


def found(broadcast_id: int) -> Broadcast:
    return broadcasts.by_id(broadcast_id)


def stages(broadcast_id: int, **options) -> list[tuple[str, str]]:
    return [(one.username, one.stage) for one in figures.missing(found(broadcast_id), **({"limit": 50} | options))]


def test_reconnects_and_workers_count_a_person_once(cast):
    broadcast_id = send(cast["alice"], now=NOW)
    for _ in range(3):
        mark(broadcast_id, "delivered_at", "bob", "alice")
        mark(broadcast_id, "read_at", "bob")
    [stats] = broadcasts.stats([found(broadcast_id)]).values()
    assert (stats.targeted, stats.delivered, stats.seen, stats.read) == (3, 2, 1, 1)


def test_never_more_delivered_than_targeted(cast):
    """Whoever gets the role later gets the message too, and is then among the targeted."""
    broadcast_id = send(cast["alice"], to_role("ops"), now=NOW)
    actions.set_roles(cast["charlie"].user_id, ["ops"], by=SYSTEM, now=NOW)
    mark(broadcast_id, "delivered_at", "bob", "charlie")
    [stats] = broadcasts.stats([found(broadcast_id)]).values()
    assert (stats.targeted, stats.delivered) == (2, 2)


def test_pace_tells_half_and_nine_in_ten_and_the_curve(cast):
    broadcast_id = send(cast["alice"], now=NOW)
    mark(broadcast_id, "delivered_at", "alice", "bob", "charlie", at=later(seconds=2))
    for username, at in (("alice", later(seconds=30)), ("bob", later(minutes=10)), ("charlie", later(hours=2))):
        mark(broadcast_id, "read_at", username, at=at)
    pace = figures.pace(found(broadcast_id), now=later(hours=3))
    assert (pace.p50, pace.p90) == (timedelta(minutes=10), timedelta(hours=2))
    assert pace.delivered == [3, 3, 3, 3, 3]  # after 1, 5, 15 min, 1 h, and now
    assert pace.read == [1, 1, 2, 2, 3]


def test_mark_all_read_counts_as_the_moment_it_was_pressed(cast):
    broadcast_id = send(cast["alice"], now=NOW)
    acts.mark_all_read(Filters(), through=10, by=cast["bob"], now=later(minutes=4))
    pace = figures.pace(found(broadcast_id), now=later(minutes=6))
    assert (pace.p50, pace.read) == (timedelta(minutes=4), [0, 1, 1])


def test_nobody_has_read_it_yet(cast):
    pace = figures.pace(found(send(cast["alice"], now=NOW)), now=later(seconds=5))
    assert (pace.p50, pace.p90, pace.read) == (None, None, [0])


def test_roles_are_counted_with_their_people(cast):
    actions.set_roles(cast["charlie"].user_id, ["ops", "sales"], by=SYSTEM, now=NOW)
    everyone = send(cast["alice"], now=NOW)
    mark(everyone, "delivered_at", "bob", "charlie")
    mark(everyone, "acked_at", "charlie")
    assert figures.by_role(found(everyone)) == [
        OfRole("ops", 2, 2, 1, 1), OfRole("admin", 1, 0, 0, 0), OfRole("sales", 1, 1, 1, 1)
    ]  # fmt: skip
    assert figures.by_role(found(send(cast["alice"], to_role("sales")))) == [
        OfRole("ops", 1, 0, 0, 0), OfRole("sales", 1, 0, 0, 0)
    ]  # fmt: skip
    assert figures.by_role(found(send(cast["alice"], to_people("bob")))) == [OfRole("ops", 1, 0, 0, 0)]


def test_missing_are_told_worst_first_and_in_pages(cast):
    ids = [actions.create_person(f"p{n}", None, by=SYSTEM, now=NOW) for n in range(4)]
    broadcast_id = send(cast["alice"], now=NOW)
    mark(broadcast_id, "delivered_at", "alice", "bob", "charlie", "p0")
    mark(broadcast_id, "first_seen_at", "bob", "charlie")
    mark(broadcast_id, "read_at", "charlie")
    worst = [(f"p{n}", "undelivered") for n in (1, 2, 3)]
    whole = [*worst, ("alice", "unseen"), ("p0", "unseen"), ("bob", "unread")]
    assert stages(broadcast_id) == whole
    assert stages(broadcast_id, limit=2) == whole[:2]
    assert stages(broadcast_id, after=(0, ids[2]), limit=2) == whole[2:4]
    assert stages(broadcast_id, after=(2, 0)) == whole[5:]
    assert figures.missing_count(found(broadcast_id)) == 6


@pytest.mark.parametrize(
    ("raw", "missing"),
    [(to_role("ops"), ["bob"]), (to_people("charlie", "bob"), ["bob", "charlie"]), (a_message(), None)],
)
def test_missing_are_only_people_of_the_audience_with_an_open_account(cast, raw, missing):
    broadcast_id = send(cast["alice"], raw, now=NOW)
    assert [name for name, _ in stages(broadcast_id)] == (missing or ["alice", "bob", "charlie"])
    actions.disable(cast["bob"].user_id, by=SYSTEM, now=NOW)
    assert "bob" not in dict(stages(broadcast_id))
    assert figures.missing_count(found(broadcast_id)) == len(stages(broadcast_id))


def test_acknowledgement_is_owed_until_it_is_given(cast):
    broadcast_id = send(cast["alice"], a_message(requiresAck=True), now=NOW)
    mark(broadcast_id, "read_at", "alice", "bob")
    mark(broadcast_id, "acked_at", "alice")
    assert stages(broadcast_id) == [("charlie", "undelivered"), ("bob", "unacknowledged")]
    assert figures.missing_count(found(broadcast_id)) == 2


def test_what_was_read_before_it_was_shown_again_does_not_count(cast):
    broadcast_id = send(cast["alice"], now=NOW)
    mark(broadcast_id, "read_at", "bob")
    edits.edit(broadcast_id, {"title": "New"}, version=None, by=cast["alice"], now=later(minutes=5), notify_again=True)
    [stats] = broadcasts.stats([found(broadcast_id)]).values()
    assert (stats.delivered, stats.read) == (1, 0)
    assert figures.pace(found(broadcast_id), now=later(minutes=6)).read[-1] == 0
    assert "bob" in dict(stages(broadcast_id))


def test_deliveries_are_sorted_with_the_missing_last(cast):
    broadcast_id = send(cast["alice"], now=NOW)
    mark(broadcast_id, "read_at", "charlie", at=later(minutes=1))
    mark(broadcast_id, "read_at", "bob", at=later(minutes=2))

    def names(**options) -> list[str]:
        return [row.username for row in figures.deliveries(found(broadcast_id), **({"limit": 9} | options))]

    assert names() == ["alice", "bob", "charlie"]
    assert names(sort="read") == ["charlie", "bob", "alice"]
    assert names(sort="read", descending=True) == ["bob", "charlie", "alice"]
    assert names(sort="name", descending=True, offset=1, limit=1) == ["bob"]
    assert names(after=cast["alice"].user_id) == ["bob", "charlie"]
