"""API tokens: create and revoke them, and end what they opened."""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from broadcast.actions import notify
from broadcast.actions.users import get_user_for_update
from broadcast.base.cooperative import split_into_chunks
from broadcast.base.errors import Invalid, NotFound
from broadcast.domain import permissions
from broadcast.domain.actor import Actor
from broadcast.domain.audience import make_user_audience
from broadcast.domain.events import EventType
from broadcast.domain.message import is_single_line
from broadcast.domain.permissions import Permission
from broadcast.store import audit, log
from broadcast.store import users as people
from broadcast.store.database import ROW_LOCK
from broadcast.store.models import ApiToken
from broadcast.store.transactions import write_transaction

TOKEN_SCOPES = ("inbox", "admin", "events", "metrics", "embed")
MAX_LABEL_CHARACTERS = 100
_MAX_USERS_PER_EVENT = 5000  # users in one event of the log


def hash_token(token: str) -> str:
    """Hash a token. SHA-256 is enough here, unlike for passwords: a token has 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


def create_token(
    user_id: int, *, scopes: Iterable[str], label: str, by: Actor, now: datetime, valid_for: timedelta | None = None
) -> str:
    """Create an API token and return it; it is shown only once. Raises Invalid, NotFound."""
    by.require(Permission.PEOPLE)
    scopes, label = sorted(set(scopes)), " ".join(label.split())
    if unknown_scopes := set(scopes) - set(TOKEN_SCOPES):
        raise Invalid({"scope": f"{', '.join(sorted(unknown_scopes))} is not a scope; use {', '.join(TOKEN_SCOPES)}."})
    if not scopes:
        raise Invalid({"scope": f"Choose at least one scope: {', '.join(TOKEN_SCOPES)}."})
    if not 0 < len(label) <= MAX_LABEL_CHARACTERS or not is_single_line(label):
        raise Invalid({"label": f"Enter a description of at most {MAX_LABEL_CHARACTERS} characters."})
    token = "bms_" + secrets.token_urlsafe(32)
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        if user.disabled_at:
            raise Invalid({"username": f"The account of {user.username} is disabled."})
        if "admin" in scopes and not permissions.get_role_permissions(user.roles):
            sentence = f"{user.username} has no access to the console, so the token cannot have the scope admin."
            raise Invalid({"scope": sentence})
        row = ApiToken(token_hash=hash_token(token), user_id=user.id, label=label, scopes=" ".join(scopes))
        row.created_at, row.expires_at = now, now + valid_for if valid_for else None
        session.add(row)
        session.flush()
        audit.record(session, by, "token.created", "token", row.id, now=now, person=user.username, scopes=scopes)
    return token


def revoke_token(token_id: int, *, by: Actor, now: datetime) -> None:
    """Revoke a token and end its streams and its embedded sessions; idempotent. Raises NotFound."""
    by.require(Permission.PEOPLE)
    with write_transaction() as session:
        row = session.get(ApiToken, token_id, with_for_update=ROW_LOCK)
        if row is None:
            raise NotFound("There is no such token.")
        if row.revoked_at:
            return
        row.revoked_at = now
        audit.record(session, by, "token.revoked", "token", row.id, now=now, label=row.label)
        end_token_streams(session, row, now)
    notify.notify_workers()


def end_token_streams(session: Session, token: ApiToken, now: datetime) -> None:
    """End the embedded sessions that a token created, and its streams on every worker."""
    affected_ids = sorted({token.user_id, *people.end_embedded_sessions(session, token.id, at=now)})
    session.flush()
    payload = {"session": format_token_key(token.id)}
    audiences = map(make_user_audience, split_into_chunks(affected_ids, _MAX_USERS_PER_EVENT))
    entries = [log.NewEvent(EventType.SESSION_ENDED, None, audience, payload) for audience in audiences]
    log.append(session, entries, at=now)


def format_token_key(token_id: int) -> str:
    """The key of a token in the hub and in the log."""
    return f"token:{token_id}"
