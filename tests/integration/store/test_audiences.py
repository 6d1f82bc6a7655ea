"""The audience rule in SQL equals the audience rule in Python, for many audiences and every mix of roles."""

import itertools
import random
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from broadcast.actions import broadcasts as actions
from broadcast.actions import users as people_actions
from broadcast.actions.audiences import resolve_audience
from broadcast.domain import clock
from broadcast.domain.audience import EveryoneAudience, exclude, make_role_audience, make_user_audience
from broadcast.domain.message import parse_draft
from broadcast.store import audiences, broadcasts, log
from broadcast.store import users as people
from broadcast.store.database import db
from broadcast.store.fast.count_cache import COUNT_CACHE, CountCache
from broadcast.store.inbox import Inbox
from broadcast.store.transactions import write_transaction
from tests.support.builders import build_message, load_actor

NOW = clock.now()
ROLES = ["admin", "ops", "sales"]


@pytest.fixture
def everybody(cast) -> list:
    """The cast, and one person for each set of roles; somebody disabled."""
    for n, mix in enumerate(itertools.chain.from_iterable(itertools.combinations(ROLES, k) for k in range(4))):
        people_actions.create_user(f"person{n}", None, roles=mix, by=cast["alice"], now=NOW)
    people_actions.disable_user(people.get_by_username("person7").id, by=cast["alice"], now=NOW)
    names = ["alice", "bob", "charlie", *(f"person{n}" for n in range(7))]
    return [load_actor(name).viewer for name in names]


def random_targets(viewers: list, count: int) -> list[dict]:
    rng = random.Random(7)
    some = lambda values, least: rng.sample(values, rng.randint(least, min(3, len(values))))  # noqa: E731
    ids, found = [viewer.user_id for viewer in viewers], []
    for _ in range(count):
        kind = rng.choice(["ALL", "ROLE", "SELECTED"])
        target = {"targetType": kind}
        if kind == "ROLE":
            target |= {"targetIds": some(ROLES, 1), "targetMatch": rng.choice(["ANY", "ALL"])}
        elif kind == "SELECTED":
            target |= {"targetIds": some(ids, 1)}
        left = [role for role in ROLES if role not in target.get("targetIds", ())]
        target |= {"exceptRoles": some(left, 0) if left else [], "exceptIds": some(ids, 0)}
        found.append(target)
    return found


def test_store_and_domain_agree_for_many_audiences(cast, everybody):
    """I3: inbox, counts and snapshots hold exactly the people whom the rule includes."""
    compared = 0
    for target in random_targets(everybody, 80):
        draft = parse_draft(build_message(**target, draft=True), now=NOW)
        broadcast_id = actions.publish(draft, by=cast["alice"], now=NOW).id
        audience = audiences.get_audience(broadcasts.get(broadcast_id))
        assert audience == resolve_audience(draft.target)
        members = [viewer.user_id for viewer in everybody if audience.includes(viewer)]
        assert audiences.list_user_ids(audience) == members, target
        assert audiences.count(audience) == len(members), target
        ids = [viewer.user_id for viewer in everybody][::2]
        assert audiences.count(audience, among_ids=ids) == len(set(members) & set(ids)), target
        assert [user.id for user in audiences.list_sample(audience, 3)] == members[:3], target
        if members:
            actions.release(broadcast_id, by=cast["alice"], now=NOW)
            for viewer in everybody:
                assert (Inbox(viewer, NOW).find(broadcast_id) is not None) == (viewer.user_id in members), target
            compared += 1
    assert compared > 40


def test_long_lists_of_people_fit_into_statements(cast):
    bob = cast["bob"].user_id
    many = range(1, 40_000)
    assert audiences.count(exclude(EveryoneAudience(), [], many)) == 0
    assert audiences.count(exclude(make_user_audience(many), ["ops"], [])) == 2
    assert audiences.list_user_ids(exclude(make_user_audience(many), [], set(many) - {bob})) == [bob]
    assert audiences.count(make_role_audience(["ops"]), among_ids=many) == 1


def test_snapshot_keeps_who_was_there_and_dynamic_lets_people_join(cast):
    alice = cast["alice"]
    ids = {
        name: actions.publish(
            parse_draft(build_message(targetType="ROLE", targetIds=["ops"], snapshot=name == "frozen"), now=NOW),
            by=alice,
            now=NOW,
        ).id
        for name in ("frozen", "open")
    }
    people_actions.set_roles(cast["charlie"].user_id, ["ops"], by=alice, now=NOW)
    people_actions.set_roles(cast["bob"].user_id, [], by=alice, now=NOW)
    charlie, bob = load_actor("charlie").viewer, load_actor("bob").viewer
    assert Inbox(charlie, NOW).filter_visible_ids(list(ids.values())) == {ids["open"]}
    assert Inbox(bob, NOW).filter_visible_ids(list(ids.values())) == {ids["frozen"]}


@pytest.mark.parametrize("online", [0, 1, 700, 5000])
def test_who_is_online_is_counted_by_one_question_however_many_they_are(cast, online):
    """The form asks at each of its changes."""
    asked: list[str] = []
    bob, ids = cast["bob"].user_id, list(range(10**6, 10**6 + online))
    named = [cast["charlie"].user_id, *ids]
    for audience in (
        EveryoneAudience(),
        make_role_audience(["ops"]),
        make_user_audience(named),
        exclude(EveryoneAudience(), ["admin"], ids),
    ):
        with counted_questions(asked):
            found = audiences.count(audience, among_ids=[bob, *named])
        assert len(asked) <= 1, audience
        members = {person.user_id for person in cast.values() if audience.includes(person.viewer)}
        assert found == len(members & {bob, *named}), audience


@contextmanager
def counted_questions(asked: list[str]):
    def note(_connection, _cursor, statement, *_others) -> None:
        if statement != "BEGIN":
            asked.append(statement)

    asked.clear()
    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


def test_count_of_a_version_that_a_failover_gave_out_again_is_counted_anew(in_app):
    """The epoch tells the two apart: the versions are those of the standby, which had fewer."""
    COUNT_CACHE.attach(in_app, CountCache(clock=iter(range(0, 1000, 10)).__next__))  # every count is slow, so kept
    counts = iter([1, 2])
    assert [audiences.cache_until_membership_changes("test", lambda: next(counts)) for _ in range(2)] == [1, 1]
    with write_transaction() as session:
        log.start_epoch(session)
    assert audiences.cache_until_membership_changes("test", lambda: next(counts)) == 2
