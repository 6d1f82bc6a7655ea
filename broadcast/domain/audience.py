"""Who a broadcast is for. One rule for the live stream, the inbox, replay, receipts, and the answer to "why".

An empty set would reach nobody, so it cannot be made. An unknown role or user is refused where an audience is read from
input (`broadcast.actions.audiences`), never taken as "everyone". The store repeats the rule in SQL, because a million
users cannot be checked one by one; a test compares the two for random audiences.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

NO_USER_ID = 0  # not a user id: stands for all users with the same roles whom an audience does not name
_NO_USER_IDS: frozenset[int] = frozenset()
_RETIRED_SEPARATOR = "~"  # appears in no role name that can be assigned


@dataclass(frozen=True, slots=True)
class Viewer:
    """The user at an inbox or a stream: id and current role names."""

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
    """Users who have at least one of these roles, or all of them, when they look: also who gets the role later."""

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


BaseAudience = EveryoneAudience | RoleAudience | UserAudience


@dataclass(frozen=True, slots=True)
class ExclusionAudience:
    """`base` without the users who have one of `roles` and the users in `ids`. Exclusion always wins."""

    base: BaseAudience
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


# `named_user_ids` are the users that an audience names by id; for all others, roles alone decide. The hub relies on it.
Audience = BaseAudience | ExclusionAudience


def make_role_audience(names: Iterable[str], *, match_all: bool = False) -> RoleAudience:
    return RoleAudience(frozenset(names), match_all)


def make_user_audience(user_ids: Iterable[int]) -> UserAudience:
    return UserAudience(frozenset(user_ids))


def exclude(base: BaseAudience, roles: Iterable[str], user_ids: Iterable[int]) -> Audience:
    """`base` without the given roles and users; `base` itself if both are empty."""
    roles, user_ids = frozenset(roles), frozenset(user_ids)
    return ExclusionAudience(base, roles, user_ids) if roles or user_ids else base


def split_exclusions(audience: Audience) -> tuple[BaseAudience, frozenset[str], frozenset[int]]:
    """The audience without its exclusions, the excluded roles and the ids excluded by name."""
    if isinstance(audience, ExclusionAudience):
        return audience.base, audience.roles, audience.ids
    return audience, frozenset(), _NO_USER_IDS


def parse_audience(value: dict[str, Any]) -> Audience:
    """Read back what `to_json` wrote. Raises ValueError for any other shape: deny by default."""
    match value:
        case {"except": {"roles": list(names), "users": list(ids), **others}, **base} if not others:
            if _are_all(str, names) and _are_all(int, ids):
                return ExclusionAudience(_parse_base_audience(base), frozenset(names), frozenset(ids))
        case dict():
            return _parse_base_audience(value)
    raise ValueError(f"not an audience: {value!r}")


def _parse_base_audience(value: dict[str, Any]) -> BaseAudience:
    match value:
        case {"kind": "everyone", **others} if not others:
            return EveryoneAudience()
        case {"kind": "roles", "roles": list(names), **match} if match in ({}, {"match": "all"}) and _are_all(
            str, names
        ):
            return make_role_audience(names, match_all=bool(match))
        case {"kind": "users", "users": list(ids), **others} if not others and _are_all(int, ids):
            return make_user_audience(ids)
    raise ValueError(f"not an audience: {value!r}")


def make_retired_role_name(name: str, suffix: str) -> str:
    """The name that a deleted role keeps. No role can be created with it; `display_role_name` recovers the original."""
    return f"{name[: 63 - len(suffix)]}{_RETIRED_SEPARATOR}{suffix}"


def display_role_name(name: str) -> str:
    """A role's name for display; a deleted role's without its suffix, which tells it from a later namesake."""
    return name.partition(_RETIRED_SEPARATOR)[0]


def _are_all(kind: type, values: list) -> bool:
    return {type(value) for value in values} <= {kind}


def _describe_roles(names: Iterable[str]) -> str:
    names = sorted(names)
    return f"the role{'s' if len(names) > 1 else ''} {', '.join(names)}"
