"""Queries for users, and recipient counts of audiences."""

from itertools import product

import pytest

from broadcast.actions import accounts
from broadcast.actions import user_import as importing
from broadcast.actions import users as actions
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.domain.audience import EveryoneAudience, exclude, make_role_audience, make_user_audience
from broadcast.store import audiences
from broadcast.store import users as people
from broadcast.store.users import UserFilters

NOW = clock.now()


def test_names_are_found_without_case(cast):
    assert people.get_by_username("BOB").id == cast["bob"].user_id
    assert people.get_by_username("nobody") is None


def test_name_that_no_database_can_hold_is_nobody(cast):
    assert people.get_by_username("bob\0") is None


def test_counts_ask_the_roles_of_now(cast):
    assert audiences.count(EveryoneAudience()) == people.count_all() == 3
    assert audiences.count(make_role_audience(["ops"])) == 1
    assert audiences.count(make_role_audience(["ops", "admin"])) == 2
    assert audiences.count(make_role_audience(["nobody-has-it"])) == 0
    assert audiences.count(make_user_audience([cast["bob"].user_id, 99_999])) == 1


def test_person_with_two_roles_counts_once(cast):
    actions.set_roles(cast["bob"].user_id, ["ops", "admin"], by=cast["alice"], now=NOW)
    assert audiences.count(make_role_audience(["ops", "admin"])) == 2


def test_disabled_people_do_not_count_and_cannot_be_chosen(cast):
    bob = cast["bob"].user_id
    actions.disable_user(bob, by=cast["alice"], now=NOW)
    assert audiences.count(EveryoneAudience()) == 2
    assert audiences.count(make_role_audience(["ops"])) == audiences.count(make_user_audience([bob])) == 0
    assert people.resolve_ids(["bob", bob, "charlie"]) == {"charlie": cast["charlie"].user_id}
    assert people.count_users_by_role() == {"admin": 1, "ops": 0}


def test_many_names_are_looked_up_in_pieces(cast):
    names = [f"nobody{n}" for n in range(1200)] + ["bob"] + list(range(100_000, 101_200)) + [cast["bob"].user_id]
    assert people.resolve_ids(names) == {"bob": cast["bob"].user_id, cast["bob"].user_id: cast["bob"].user_id}
    assert audiences.count(make_user_audience(range(1, 40_000))) == 3


def test_missing_roles(cast):
    assert people.find_missing_roles(["ops", "sales"]) == {"sales"}
    assert people.find_missing_roles([]) == set()


def test_first_admin_is_the_oldest_enabled_one(cast):
    assert people.get_first_admin().username == "alice"
    actions.set_roles(cast["bob"].user_id, ["admin"], by=cast["alice"], now=NOW)
    actions.disable_user(cast["alice"].user_id, by=cast["alice"], now=NOW)
    assert people.get_first_admin().username == "bob"


@pytest.mark.parametrize("name", ["bob' --", "%", "*"])
def test_names_are_never_patterns(cast, name):
    assert people.get_by_username(name) is None


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("bob", ["bob"]), ("BO", ["bob"]), ("b", ["bea.b-1", "bob"]), ("bea.b", ["bea.b-1"]),
        ("arger", ["bea.b-1"]), ("Ä", ["alice", "bea.b-1"]), ("ob", []), ("bob arger", []), ("%", []), ("_", []), ("\0", []),
    ],
)  # fmt: skip
def test_people_are_found_by_the_beginnings_of_their_words(cast, q, expected):
    actions.create_user("bea.b-1", None, name="Bea Ärger", by=SYSTEM, now=NOW)
    assert sorted(user.username for user in people.search(q, limit=9)) == expected
    assert [user.username for user in people.list_page(UserFilters(q=q))] == expected
    assert people.count_matching(UserFilters(q=q), max_count=100) == len(expected)


def test_imported_people_are_found_and_counting_ends_where_it_is_told(cast):
    table = "username,name\n" + "\n".join(f"dora{n},Dora Day" for n in range(30))
    importing.import_users(table, by=cast["alice"], now=NOW)
    assert [user.username for user in people.search("day dora2", limit=3)] == ["dora2", "dora20", "dora21"]
    assert people.count_matching(UserFilters(q="day"), max_count=10) == 11


def test_who_is_not_alerted_is_counted_as_the_preferences_say(cast):
    """The number a sender sees and the rule of the pages are one, person by person."""
    wanted = {
        "alice": {"mutedCategories": ["News"]},
        "bob": {"minimumPriority": "HIGH", "mutedCategories": ["Sales", "Policy"]},
        "charlie": {"minimumPriority": "URGENT"},
    }
    known = [accounts.save_preferences(raw, by=cast[name], now=NOW) for name, raw in wanted.items()]
    for priority, category in product(["LOW", "NORMAL", "HIGH"], ["News", "Sales", "Policy", None]):
        expected = sum(one.is_alert_muted(priority=priority, category=category, mandatory=["Policy"]) for one in known)
        found = people.count_muted(
            EveryoneAudience(), priority=priority, category=category, mandatory_categories=["Policy"]
        )
        assert (priority, category, found) == (priority, category, expected)
    of_ops = exclude(make_role_audience(["ops", "admin"]), [], [cast["alice"].user_id])
    assert people.count_muted(of_ops, priority="LOW", category="News") == 1
    assert people.count_muted(make_user_audience([cast["alice"].user_id]), priority="LOW", category="News") == 1
    accounts.save_preferences({}, by=cast["bob"], now=NOW)
    assert people.count_muted(of_ops, priority="LOW", category="News") == 0
