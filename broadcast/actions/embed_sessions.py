"""An inbox in another site's pages begins: a session of that person which no cookie opens.

A session and not only a signature, so that whatever ends sessions ends it too: signing out everywhere, a new password, a
disabled account, a press in "My account", the end of the site's own token.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from broadcast.actions import audit
from broadcast.actions.users import hash_token
from broadcast.base.errors import Forbidden, Invalid
from broadcast.domain.actor import Actor
from broadcast.store import users
from broadcast.store.database import ROW_LOCK, writing
from broadcast.store.models import ApiToken, User, UserSession


@dataclass(frozen=True, slots=True)
class Site:
    """Who embeds: the pages of `origin`, by the token of their server."""

    origin: str
    token_id: int


@dataclass(frozen=True, slots=True)
class Lasts:
    """How long a session goes on: unused, and in all."""

    idle: timedelta
    longest: timedelta


@dataclass(frozen=True, slots=True)
class Begun:
    """`ends_at` is when the session ends whatever happens."""

    session_id: int
    ends_at: datetime


def begin(username: str, site: Site, lasts: Lasts, *, now: datetime) -> Begun:
    """The session of this person in the pages of `site`: the one that is open, or else a new one, which the audit tells.

    Raises Forbidden when the site's token may not do this any more, Invalid, Busy.
    """
    # what is merely compatible with a name may be somebody else's name at the site
    person = users.by_username(username) if username.isascii() else None
    if person is None or person.disabled_at:
        raise Invalid({"username": "There is nobody with this username, or the account is disabled."})
    return _open(person.id, site, lasts, now) or _begin(person.id, site, lasts, now)


def _open(user_id: int, site: Site, lasts: Lasts, now: datetime) -> Begun | None:
    found = users.embedded_session(user_id, origin=site.origin, token_id=site.token_id)
    if found is None or now - found.seen_at > lasts.idle or now - found.created_at >= lasts.longest:
        return None
    return Begun(found.id, found.created_at + lasts.longest)


def _begin(user_id: int, site: Site, lasts: Lasts, now: datetime) -> Begun:
    with writing() as session:
        token = session.get(ApiToken, site.token_id, with_for_update=ROW_LOCK, populate_existing=True)
        if token is None or token.revoked_at or "embed" not in token.scopes.split():
            raise Forbidden()
        person = session.get(User, user_id, with_for_update=ROW_LOCK | {"of": User}, populate_existing=True)
        if person.disabled_at:
            raise Invalid({"username": "The account is disabled."})
        if begun := _open(user_id, site, lasts, now):  # another tab of the same person was faster
            return begun
        person.first_sign_in_at = person.first_sign_in_at or now
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
        by = Actor(person.id, person.name)
        audit.record(session, by, "person.embedded", "person", person.id, now=now, origin=site.origin, site=token.label)
        return Begun(row.id, now + lasts.longest)
