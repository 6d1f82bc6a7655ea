"""Somebody whom another system knows: what an OpenID provider or a reverse proxy says of a person who signed in there."""

from dataclasses import dataclass

PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class Vouched:
    """`by` is who says it: an issuer's address, or PROXY. `subject` is what that system calls the person for ever; None when
    it has nothing better than the username. `roles` are their names here; None when it says nothing about roles.
    """

    by: str
    subject: str | None
    username: str
    name: str | None = None
    roles: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """How far that goes: whether it may add people, and whether it may take over an account that has a password."""

    creates: bool = False
    takes_over: bool = False
