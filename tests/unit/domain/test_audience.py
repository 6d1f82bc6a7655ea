"""Audiences: one rule, and nobody by default."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.domain.audience import (
    EveryoneAudience,
    ExclusionAudience,
    RoleAudience,
    UserAudience,
    Viewer,
    exclude,
    make_role_audience,
    make_user_audience,
    parse_audience,
)

BOB, CHARLIE = Viewer(2, frozenset({"ops"})), Viewer(3)


def test_everyone_includes_people_without_a_role():
    assert EveryoneAudience().includes(BOB)
    assert EveryoneAudience().includes(CHARLIE)


def test_roles_include_who_has_one_of_them():
    assert make_role_audience(["ops", "sales"]).includes(BOB)
    assert not make_role_audience(["sales"]).includes(BOB)
    assert not make_role_audience(["ops"]).includes(CHARLIE)


def test_role_names_are_compared_whole():
    for near in ("op", "opss", "OPS", "ops ", ""):
        assert not make_role_audience([near]).includes(BOB), near


def test_users_include_whom_they_name():
    assert make_user_audience([2]).includes(BOB)
    assert not make_user_audience([2]).includes(CHARLIE)


@pytest.mark.parametrize("make", [RoleAudience, UserAudience])
def test_empty_set_cannot_be_made(make):
    with pytest.raises(ValueError, match="nobody"):
        make(frozenset())


def test_all_roles_together_are_asked_for():
    both = make_role_audience(["ops", "sales"], match_all=True)
    assert not both.includes(BOB)
    assert both.includes(Viewer(4, frozenset({"ops", "sales", "admin"})))


def test_leaving_out_always_wins():
    assert not exclude(EveryoneAudience(), ["ops"], []).includes(BOB)
    assert not exclude(make_user_audience([2, 3]), [], [2]).includes(BOB)
    assert not exclude(make_user_audience([2, 3]), ["ops"], []).includes(BOB)
    assert exclude(make_user_audience([2, 3]), ["ops"], []).includes(CHARLIE)
    assert exclude(EveryoneAudience(), [], []) == EveryoneAudience()
    with pytest.raises(ValueError, match="nobody"):
        ExclusionAudience(EveryoneAudience())


@pytest.mark.parametrize(
    ("audience", "included", "because"),
    [
        (EveryoneAudience(), True, "it is for everyone"),
        (make_role_audience(["ops", "sales"]), True, "they have the role ops"),
        (make_role_audience(["ops", "sales"], match_all=True), False, "they lack the role sales"),
        (make_role_audience(["a", "b"]), False, "they lack the roles a, b"),
        (make_user_audience([2]), True, "they are chosen by name"),
        (make_user_audience([3]), False, "they are not among the chosen people"),
        (exclude(EveryoneAudience(), ["ops"], []), False, "people with the role ops are excluded"),
        (exclude(make_role_audience(["ops"]), [], [2]), False, "they are excluded by name"),
    ],
)
def test_answer_to_would_this_person_get_it(audience, included, because):
    assert audience.explain(BOB) == (included, because)


@pytest.mark.parametrize(
    "audience",
    [
        EveryoneAudience(), make_role_audience(["b", "a"]), make_role_audience(["a", "b"], match_all=True),
        make_user_audience([3, 1]),
        exclude(EveryoneAudience(), ["a"], [1]), exclude(make_role_audience(["a"], match_all=True), [], [7]),
        exclude(make_user_audience([1, 2]), ["x"], []),
    ],
)  # fmt: skip
def test_json_is_read_back(audience):
    assert parse_audience(audience.to_json()) == audience


@pytest.mark.parametrize(
    "shape",
    [None, {}, [], "everyone", {"kind": "all"}, {"kind": "EVERYONE"}, {"kind": None}, {"roles": ["ops"]}, {"kind": "roles"},
     {"kind": "roles", "roles": []}, {"kind": "roles", "roles": "ops"}, {"kind": "roles", "roles": [1]},
     {"kind": "roles", "roles": [[]]}, {"kind": "users", "users": []}, {"kind": "users", "users": ["2"]},
     {"kind": "users", "users": [True]}, {"kind": "users", "users": [{}]}, {"kind": "users", "roles": ["ops"]},
     {"kind": "roles", "roles": ["ops"], "match": "any"}, {"kind": "roles", "roles": ["ops"], "match": None},
     {"kind": "everyone", "except": {}}, {"kind": "everyone", "except": {"roles": [], "users": []}},
     {"kind": "everyone", "except": {"roles": ["a"]}}, {"kind": "everyone", "except": {"roles": [1], "users": []}},
     {"kind": "everyone", "except": {"roles": [], "users": ["1"]}}, {"except": {"roles": ["a"], "users": []}},
     {"kind": "everyone", "match": "all"}, {"kind": "everyone", "except": ["ops"]},
     {"kind": "users", "users": [2], "not": [3]}],
)  # fmt: skip
def test_unknown_shape_is_denied_not_taken_for_everybody(shape):
    with pytest.raises(ValueError):
        parse_audience(shape)


_names = st.text(max_size=4)


@given(names=st.frozensets(_names, min_size=1), have=st.frozensets(_names))
def test_role_audience_is_the_intersection(names, have):
    assert RoleAudience(names).includes(Viewer(1, have)) == bool(names & have)


_ids = st.integers(1, 4)
_bases = st.one_of(
    st.just(EveryoneAudience()),
    st.builds(RoleAudience, st.frozensets(_names, min_size=1), st.booleans()),
    st.builds(UserAudience, st.frozensets(_ids, min_size=1)),
)
audiences = st.builds(exclude, _bases, st.frozensets(_names), st.frozensets(_ids))


@given(audience=audiences, viewer=st.builds(Viewer, _ids, st.frozensets(_names)))
def test_rule_is_one(audience, viewer):
    """The verdict agrees with the rule, the log gives back what it was given, and roles decide for all who are not named."""
    assert audience.explain(viewer).included == audience.includes(viewer)
    assert parse_audience(audience.to_json()) == audience
    if viewer.user_id not in audience.named_user_ids:
        assert audience.includes(viewer) == audience.includes(Viewer(0, viewer.roles))
