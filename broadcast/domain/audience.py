"""Who a broadcast is for. One rule, used for the live stream, the inbox, the replay, every receipt, and the answer to "why".

An empty set would reach nobody, so it cannot be made; an unknown role or person is refused where an audience is read from
input (`broadcast.actions.audiences`), never taken for "everybody". The store says the same rule once more in SQL, because a
million people cannot be asked one by one; a test compares the two for random audiences.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_NOBODY: frozenset[int] = frozenset()
_RETIRED = "~"  # in no name of a role that can be given to somebody


@dataclass(frozen=True, slots=True)
class Viewer:
    """A person looking: user id and role names at the moment of the look."""

    user_id: int
    roles: frozenset[str] = field(default_factory=frozenset)


class Verdict(NamedTuple):
    """`because` completes "They would get it, because …" or "They would not get it, because …"."""

    included: bool
    because: str


@dataclass(frozen=True, slots=True)
class Everyone:
    named = _NOBODY

    def includes(self, viewer: Viewer) -> bool:
        return True

    def judge(self, viewer: Viewer) -> Verdict:
        return Verdict(True, "it is for everyone")

    def as_json(self) -> dict[str, Any]:
        return {"kind": "everyone"}


@dataclass(frozen=True, slots=True)
class Roles:
    """People who have at least one of these roles, or all of them, when they look.

    Who gets the role later is included from then on.
    """

    names: frozenset[str]
    match_all: bool = False

    named = _NOBODY

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("An audience of no roles reaches nobody.")

    def includes(self, viewer: Viewer) -> bool:
        return self.names <= viewer.roles if self.match_all else not self.names.isdisjoint(viewer.roles)

    def judge(self, viewer: Viewer) -> Verdict:
        has, lacks = self.names & viewer.roles, self.names - viewer.roles
        if self.includes(viewer):
            return Verdict(True, f"they have {_roles(has)}")
        return Verdict(False, f"they lack {_roles(lacks)}")

    def as_json(self) -> dict[str, Any]:
        return {"kind": "roles", "roles": sorted(self.names)} | ({"match": "all"} if self.match_all else {})


@dataclass(frozen=True, slots=True)
class Users:
    ids: frozenset[int]

    def __post_init__(self) -> None:
        if not self.ids:
            raise ValueError("An audience of no people reaches nobody.")

    @property
    def named(self) -> frozenset[int]:
        return self.ids

    def includes(self, viewer: Viewer) -> bool:
        return viewer.user_id in self.ids

    def judge(self, viewer: Viewer) -> Verdict:
        if self.includes(viewer):
            return Verdict(True, "they are chosen by name")
        return Verdict(False, "they are not among the chosen people")

    def as_json(self) -> dict[str, Any]:
        return {"kind": "users", "users": sorted(self.ids)}


@dataclass(frozen=True, slots=True)
class Except:
    """`base` without people who have one of `roles`, and without the people `ids`. Leaving out always wins."""

    base: Everyone | Roles | Users
    roles: frozenset[str] = frozenset()
    ids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not (self.roles or self.ids):
            raise ValueError("An exception of nobody is none.")

    @property
    def named(self) -> frozenset[int]:
        return self.base.named | self.ids

    def includes(self, viewer: Viewer) -> bool:
        return viewer.user_id not in self.ids and self.roles.isdisjoint(viewer.roles) and self.base.includes(viewer)

    def judge(self, viewer: Viewer) -> Verdict:
        if viewer.user_id in self.ids:
            return Verdict(False, "they are left out by name")
        if unwanted := self.roles & viewer.roles:
            return Verdict(False, f"people with {_roles(unwanted)} are left out")
        return self.base.judge(viewer)

    def as_json(self) -> dict[str, Any]:
        return self.base.as_json() | {"except": {"roles": sorted(self.roles), "users": sorted(self.ids)}}


# `named` are the people whom an audience knows by id: for everybody else, roles alone decide. The hub relies on it.
Audience = Everyone | Roles | Users | Except


def roles(names: Iterable[str], *, match_all: bool = False) -> Roles:
    return Roles(frozenset(names), match_all)


def users(ids: Iterable[int]) -> Users:
    return Users(frozenset(ids))


def without(base: Everyone | Roles | Users, roles: Iterable[str], ids: Iterable[int]) -> Audience:
    """`base` itself when nobody is left out."""
    roles, ids = frozenset(roles), frozenset(ids)
    return Except(base, roles, ids) if roles or ids else base


def from_json(value: dict[str, Any]) -> Audience:
    """Read back what `as_json` wrote. Raises ValueError for any other shape: deny by default."""
    match value:
        case {"except": {"roles": list(names), "users": list(ids), **others}, **base} if not others:
            if _all(str, names) and _all(int, ids):
                return Except(_base_from_json(base), frozenset(names), frozenset(ids))
        case dict():
            return _base_from_json(value)
    raise ValueError(f"not an audience: {value!r}")


def _base_from_json(value: dict[str, Any]) -> Everyone | Roles | Users:
    match value:
        case {"kind": "everyone", **others} if not others:
            return Everyone()
        case {"kind": "roles", "roles": list(names), **others} if others in ({}, {"match": "all"}) and _all(str, names):
            return roles(names, match_all=bool(others))
        case {"kind": "users", "users": list(ids), **others} if not others and _all(int, ids):
            return users(ids)
    raise ValueError(f"not an audience: {value!r}")


def retired_name(name: str, mark: str) -> str:
    """The name under which a deleted role stays: no role can be called so, and `spoken` knows what it was."""
    return f"{name[: 63 - len(mark)]}{_RETIRED}{mark}"


def spoken(name: str) -> str:
    """A role's name for a sentence; that of a deleted one without what tells it from a later role of the same name."""
    return name.partition(_RETIRED)[0]


def _all(kind: type, values: list) -> bool:
    return {type(value) for value in values} <= {kind}


def _roles(names: Iterable[str]) -> str:
    names = sorted(names)
    return f"the role{'s' if len(names) > 1 else ''} {', '.join(names)}"
