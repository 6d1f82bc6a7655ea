"""Sessions for inboxes embedded in another site's pages. No cookie opens such a session.

It is a session and not only a signature, so that whatever ends sessions ends it too: signing out everywhere, a new
password, a disabled account, the button in "My account", the end of the site's own token.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from broadcast.actions.tokens import hash_token
from broadcast.base.errors import Forbidden, Invalid
from broadcast.domain.actor import Actor
from broadcast.store import audit, users
from broadcast.store.database import ROW_LOCK
from broadcast.store.models import ApiToken, User, UserSession
from broadcast.store.transactions import write_transaction


@dataclass(frozen=True, slots=True)
class EmbeddingSite:
    """The embedding site: the pages of `origin`, authorised by their server's token."""

    origin: str
    token_id: int


@dataclass(frozen=True, slots=True)
class SessionLifetime:
    """The idle timeout and the maximum lifetime of a session."""

    idle_timeout: timedelta
    max_lifetime: timedelta


@dataclass(frozen=True, slots=True)
class EmbeddedSession:
    """`ends_at` is when the session ends at the latest."""

    session_id: int
    ends_at: datetime


def begin_session(username: str, site: EmbeddingSite, lifetime: SessionLifetime, *, now: datetime) -> EmbeddedSession:
    """Return the user's open session in the pages of `site`, or create and audit a new one.

    Raises Forbidden when the site's token may no longer do this, Invalid.
    """
    # a name that is merely compatible (Unicode) may be another user's name at the site
    user = users.get_by_username(username) if username.isascii() else None
    if user is None or user.disabled_at:
        raise Invalid({"username": "There is no user with this username, or the account is disabled."})
    return _find_open_session(user.id, site, lifetime, now) or _create_session(user.id, site, lifetime, now)


def _find_open_session(
    user_id: int, site: EmbeddingSite, lifetime: SessionLifetime, now: datetime
) -> EmbeddedSession | None:
    row = users.get_embedded_session(user_id, origin=site.origin, token_id=site.token_id)
    if row is None or now - row.seen_at > lifetime.idle_timeout or now - row.created_at >= lifetime.max_lifetime:
        return None
    return EmbeddedSession(row.id, row.created_at + lifetime.max_lifetime)


def _create_session(user_id: int, site: EmbeddingSite, lifetime: SessionLifetime, now: datetime) -> EmbeddedSession:
    with write_transaction() as session:
        token = session.get(ApiToken, site.token_id, with_for_update=ROW_LOCK, populate_existing=True)
        if token is None or token.revoked_at or "embed" not in token.scopes.split():
            raise Forbidden()
        user = session.get(User, user_id, with_for_update=ROW_LOCK | {"of": User}, populate_existing=True)
        if user.disabled_at:
            raise Invalid({"username": "The account is disabled."})
        if open_session := _find_open_session(user_id, site, lifetime, now):  # another tab of the same user was faster
            return open_session
        user.first_sign_in_at = user.first_sign_in_at or now
        row = UserSession(
            token_hash=hash_token(secrets.token_urlsafe(32)),  # of a token that nobody has
            user_id=user_id,
            created_at=now,
            seen_at=now,
            agent=f"Inbox in {site.origin}",
            origin=site.origin,
            token_id=site.token_id,
        )
        session.add(row)
        session.flush()
        by = Actor(user.id, user.name)
        audit.record(session, by, "person.embedded", "person", user.id, now=now, origin=site.origin, site=token.label)
        return EmbeddedSession(row.id, now + lifetime.max_lifetime)
