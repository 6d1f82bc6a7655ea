"""What an OpenID provider or a reverse proxy says about a user who signed in there."""

from dataclasses import dataclass
from datetime import datetime

PROXY_ISSUER = "proxy"


@dataclass(frozen=True, slots=True)
class ExternalIdentity:
    """`issuer` is the issuer's URL, or PROXY_ISSUER. `subject` is the provider's permanent id for the user; None if it
    has nothing better than the username. `roles` are role names of this system; None if the provider says nothing about
    roles. `provider_session` is the id of the session there, `asserted_at` when all this was asserted. If
    `is_username_verified` is False, the username may be someone else's (an e-mail address that nobody has verified), so
    it neither matches nor creates an account. `email` is an address that the provider has verified.
    """

    issuer: str
    subject: str | None
    username: str
    name: str | None = None
    roles: frozenset[str] | None = None
    provider_session: str | None = None
    asserted_at: datetime | None = None
    is_username_verified: bool = True
    email: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderTrust:
    """What the provider may do: create accounts, and link accounts that have a password."""

    may_create_users: bool = False
    may_link_accounts: bool = False


@dataclass(frozen=True, slots=True)
class ProviderLogout:
    """A provider's notice that a session ended there (OpenID Connect Back-Channel Logout 1.0): that `provider_session`,
    or all sessions of `subject`; at least one of the two is set. `token_id` is unique for each notice of this provider.
    """

    issuer: str
    token_id: str
    subject: str | None
    provider_session: str | None
    issued_at: datetime
