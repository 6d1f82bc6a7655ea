"""Sessions for inboxes embedded in another site's pages. No cookie opens such a session.

It is a session and not only a signature, so that whatever ends sessions ends it too: signing out everywhere, a new
password, a disabled account, the button in "My account", the end of the site's own token.
"""

import secrets
from datetime import datetime, timedelta

from broadcast.actions.tokens import hash_token
from broadcast.base.errors import Forbidden, Invalid
from broadcast.config.settings import SETTINGS
from broadcast.domain.actor import Actor
from broadcast.store import audit, users
from broadcast.store.database import ROW_LOCK
from broadcast.store.models import ApiToken, User, UserSession
from broadcast.store.transactions import write_transaction


def begin_session(username: str, *, origin: str, token_id: int, now: datetime) -> tuple[int, datetime]:
    """The id of the user's open session in the pages of `origin`, or of a new one, and when it ends at the latest.

    `token_id` is the token of the pages' server. Raises Forbidden when that may no longer do this, Invalid.
    """
    # a name that is merely compatible (Unicode) may be another user's name at the site
    user = users.get_by_username(username) if username.isascii() else None
    if user is None or user.disabled_at:
        raise Invalid({"username": "There is no user with this username, or the account is disabled."})
    return _find_open_session(user.id, origin, token_id, now) or _create_session(user.id, origin, token_id, now)


def _find_open_session(user_id: int, origin: str, token_id: int, now: datetime) -> tuple[int, datetime] | None:
    row = users.get_embedded_session(user_id, origin=origin, token_id=token_id)
    if row is None or now - row.seen_at > timedelta(hours=SETTINGS.current.session_idle_hours):
        return None
    ends_at = row.created_at + timedelta(hours=SETTINGS.current.session_max_hours)
    return (row.id, ends_at) if now < ends_at else None


def _create_session(user_id: int, origin: str, token_id: int, now: datetime) -> tuple[int, datetime]:
    with write_transaction() as session:
        token = session.get(ApiToken, token_id, with_for_update=ROW_LOCK, populate_existing=True)
        if token is None or token.revoked_at or "embed" not in token.scopes.split():
            raise Forbidden()
        user = session.get(User, user_id, with_for_update=ROW_LOCK | {"of": User}, populate_existing=True)
        if user.disabled_at:
            raise Invalid({"username": "The account is disabled."})
        if open_session := _find_open_session(user_id, origin, token_id, now):  # another tab of the user was faster
            return open_session
        user.first_sign_in_at = user.first_sign_in_at or now
        row = UserSession(
            token_hash=hash_token(secrets.token_urlsafe(32)),  # of a token that nobody has
            user_id=user_id,
            created_at=now,
            seen_at=now,
            agent=f"Inbox in {origin}",
            origin=origin,
            token_id=token_id,
        )
        session.add(row)
        session.flush()
        by = Actor(user.id, user.name)
        audit.record(session, by, "person.embedded", "person", user.id, now=now, origin=origin, site=token.label)
        return row.id, now + timedelta(hours=SETTINGS.current.session_max_hours)
