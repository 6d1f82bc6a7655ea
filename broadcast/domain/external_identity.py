"""Somebody whom another system knows: what an OpenID provider or a reverse proxy says of a person who signed in there."""

from dataclasses import dataclass
from datetime import datetime

PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class Vouched:
    """`by` is who says it: an issuer's address, or PROXY. `subject` is what that system calls the person for ever; None when
    it has nothing better than the username. `roles` are their names here; None when it says nothing about roles. `session` is
    what that system calls the session there, `at` when it said all this. Unless `owns_name`, the username may be that of
    somebody else (an e-mail address that nobody has verified): then it finds no account and makes none.
    """

    by: str
    subject: str | None
    username: str
    name: str | None = None
    roles: frozenset[str] | None = None
    session: str | None = None
    at: datetime | None = None
    owns_name: bool = True


@dataclass(frozen=True, slots=True)
class Trust:
    """How far that goes: whether it may add people, and whether it may take over an account that has a password."""

    creates: bool = False
    takes_over: bool = False


@dataclass(frozen=True, slots=True)
class ProviderLogout:
    """A provider says that a session there is over (OpenID Connect Back-Channel Logout 1.0): that `session`, or every one of
    `subject`; at least one of the two is told. `token_id` is another for every notice of this provider.
    """

    by: str
    token_id: str
    subject: str | None
    session: str | None
    at: datetime
