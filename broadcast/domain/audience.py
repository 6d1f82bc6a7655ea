"""Who a broadcast is for. One rule, used for the live stream, the inbox, the replay, every receipt, and the answer to "why".

An empty set would reach nobody, so it cannot be made; an unknown role or person is refused where an audience is read from
input (`broadcast.actions.audiences`), never taken for "everybody". The store says the same rule once more in SQL, because a
million people cannot be asked one by one; a test compares the two for random audiences.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_NO_USER_IDS: frozenset[int] = frozenset()
_RETIRED_SEPARATOR = "~"  # in no name of a role that can be given to somebody


@dataclass(frozen=True, slots=True)
class Viewer:
    """A person looking: user id and role names at the moment of the look."""

    user_id: int
    roles: frozenset[str] = field(default_factory=frozenset)


class AudienceVerdict(NamedTuple):
    """`because` completes "They would get it, because …" or "They would not get it, because …"."""

    included: bool
    because: str


@dataclass(frozen=True, slots=True)
class EveryoneAudience:
    named_user_ids = _NO_USER_IDS

    def includes(self, viewer: Viewer) -> bool:
        return True

    def explain(self, viewer: Viewer) -> AudienceVerdict:
        return AudienceVerdict(True, "it is for everyone")

    def to_json(self) -> dict[str, Any]:
        return {"kind": "everyone"}


@dataclass(frozen=True, slots=True)
class RoleAudience:
    """People who have at least one of these roles, or all of them, when they look.

    Who gets the role later is included from then on.
    """

    names: frozenset[str]
    match_all: bool = False

    named_user_ids = _NO_USER_IDS

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("An audience of no roles reaches nobody.")

    def includes(self, viewer: Viewer) -> bool:
        return self.names <= viewer.roles if self.match_all else not self.names.isdisjoint(viewer.roles)

    def explain(self, viewer: Viewer) -> AudienceVerdict:
        held_roles, missing_roles = self.names & viewer.roles, self.names - viewer.roles
        if self.includes(viewer):
            return AudienceVerdict(True, f"they have {_describe_roles(held_roles)}")
        return AudienceVerdict(False, f"they lack {_describe_roles(missing_roles)}")

    def to_json(self) -> dict[str, Any]:
        return {"kind": "roles", "roles": sorted(self.names)} | ({"match": "all"} if self.match_all else {})


@dataclass(frozen=True, slots=True)
class UserAudience:
    ids: frozenset[int]

    def __post_init__(self) -> None:
        if not self.ids:
            raise ValueError("An audience of no people reaches nobody.")

    @property
    def named_user_ids(self) -> frozenset[int]:
        return self.ids

    def includes(self, viewer: Viewer) -> bool:
        return viewer.user_id in self.ids

    def explain(self, viewer: Viewer) -> AudienceVerdict:
        if self.includes(viewer):
            return AudienceVerdict(True, "they are chosen by name")
        return AudienceVerdict(False, "they are not among the chosen people")

    def to_json(self) -> dict[str, Any]:
        return {"kind": "users", "users": sorted(self.ids)}


@dataclass(frozen=True, slots=True)
class ExclusionAudience:
    """`base` without people who have one of `make_role_audience`, and without the people `user_ids`. Leaving out
    always wins.
    """

    base: EveryoneAudience | RoleAudience | UserAudience
    roles: frozenset[str] = frozenset()
    ids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not (self.roles or self.ids):
            raise ValueError("An exception of nobody is none.")

    @property
    def named_user_ids(self) -> frozenset[int]:
        return self.base.named_user_ids | self.ids

    def includes(self, viewer: Viewer) -> bool:
        return viewer.user_id not in self.ids and self.roles.isdisjoint(viewer.roles) and self.base.includes(viewer)

    def explain(self, viewer: Viewer) -> AudienceVerdict:
        if viewer.user_id in self.ids:
            return AudienceVerdict(False, "they are excluded by name")
        if excluded_roles := self.roles & viewer.roles:
            return AudienceVerdict(False, f"people with {_describe_roles(excluded_roles)} are excluded")
        return self.base.explain(viewer)

    def to_json(self) -> dict[str, Any]:
        return self.base.to_json() | {"except": {"roles": sorted(self.roles), "users": sorted(self.ids)}}


# `named_user_ids` are the people whom an audience knows by id: for everybody else, roles alone decide. The hub relies on it.
Audience = EveryoneAudience | RoleAudience | UserAudience | ExclusionAudience


def make_role_audience(names: Iterable[str], *, match_all: bool = False) -> RoleAudience:
    return RoleAudience(frozenset(names), match_all)


def make_user_audience(user_ids: Iterable[int]) -> UserAudience:
    return UserAudience(frozenset(user_ids))


def exclude(
    base: EveryoneAudience | RoleAudience | UserAudience, roles: Iterable[str], user_ids: Iterable[int]
) -> Audience:
    """`base` itself when nobody is left out."""
    roles, user_ids = frozenset(roles), frozenset(user_ids)
    return ExclusionAudience(base, roles, user_ids) if roles or user_ids else base


def parse_audience(value: dict[str, Any]) -> Audience:
    """Read back what `to_json` wrote. Raises ValueError for any other shape: deny by default."""
    match value:
        case {"except": {"roles": list(names), "users": list(ids), **others}, **base} if not others:
            if _are_all(str, names) and _are_all(int, ids):
                return ExclusionAudience(_parse_base_audience(base), frozenset(names), frozenset(ids))
        case dict():
            return _parse_base_audience(value)
    raise ValueError(f"not an audience: {value!r}")


def _parse_base_audience(value: dict[str, Any]) -> EveryoneAudience | RoleAudience | UserAudience:
    match value:
        case {"kind": "everyone", **others} if not others:
            return EveryoneAudience()
        case {"kind": "roles", "roles": list(names), **others} if others in ({}, {"match": "all"}) and _are_all(
            str, names
        ):
            return make_role_audience(names, match_all=bool(others))
        case {"kind": "users", "users": list(ids), **others} if not others and _are_all(int, ids):
            return make_user_audience(ids)
    raise ValueError(f"not an audience: {value!r}")


def make_retired_role_name(name: str, suffix: str) -> str:
    """The name under which a deleted role stays: no role can be called so, and `display_role_name` knows what it was."""
    return f"{name[: 63 - len(suffix)]}{_RETIRED_SEPARATOR}{suffix}"


def display_role_name(name: str) -> str:
    """A role's name for a sentence; that of a deleted one without what tells it from a later role of the same name."""
    return name.partition(_RETIRED_SEPARATOR)[0]


def _are_all(kind: type, values: list) -> bool:
    return {type(value) for value in values} <= {kind}


def _describe_roles(names: Iterable[str]) -> str:
    names = sorted(names)
    return f"the role{'s' if len(names) > 1 else ''} {', '.join(names)}"
