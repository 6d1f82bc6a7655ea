"""Somebody whom another system knows: what an OpenID provider or a reverse proxy says of a person who signed in there."""

from dataclasses import dataclass
from datetime import datetime

PROXY_ISSUER = "proxy"


@dataclass(frozen=True, slots=True)
class ExternalIdentity:
    """`issuer` is who says it: an issuer's address, or PROXY. `subject` is what that system calls the person for ever; None
    when it has nothing better than the username. `roles` are their names here; None when it says nothing about roles.
    `provider_session` is what that system calls the session there, `at` when it said all this. Unless
    `is_username_verified`, the username may be that of somebody else (an e-mail address that nobody has verified): then it
    finds no account and makes none.
    """

    issuer: str
    subject: str | None
    username: str
    name: str | None = None
    roles: frozenset[str] | None = None
    provider_session: str | None = None
    asserted_at: datetime | None = None
    is_username_verified: bool = True


@dataclass(frozen=True, slots=True)
class ProviderTrust:
    """How far that goes: whether it may add people, and whether it may take over an account that has a password."""

    may_create_users: bool = False
    may_link_accounts: bool = False


@dataclass(frozen=True, slots=True)
class ProviderLogout:
    """A provider says that a session there is over (OpenID Connect Back-Channel Logout 1.0): that `provider_session`, or
    every one of `subject`; at least one of the two is told. `token_id` is another for every notice of this provider.
    """

    issuer: str
    token_id: str
    subject: str | None
    provider_session: str | None
    issued_at: datetime
