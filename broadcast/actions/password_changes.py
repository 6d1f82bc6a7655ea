"""Change one's own password, or set another user's; other sessions of the user end."""

import secrets
from datetime import datetime

from sqlalchemy.orm import Session

from broadcast.actions import notify, passwords
from broadcast.actions.sessions import append_session_ended_events, format_session_key
from broadcast.actions.tokens import hash_token
from broadcast.actions.users import check_password, get_user_for_update
from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.domain.actor import Actor
from broadcast.domain.permissions import Permission
from broadcast.store import audit
from broadcast.store import users as people
from broadcast.store.models import UserSession
from broadcast.store.transactions import write_transaction

_WRONG_CURRENT_PASSWORD = "Your current password is incorrect."


def change_password(current_password: str, new_password: str, *, by: Actor, now: datetime, kept_session_id: int) -> str:
    """Change one's own password, given the current one. Every session but `kept_session_id` ends; that one gets a new
    token, which is returned, so that a copied cookie becomes worthless.

    Raises Invalid.
    """
    user = people.get(by.user_id)
    old_hash = user.password_hash
    if not passwords.verify_password(current_password, old_hash):
        raise Invalid({"current": _WRONG_CURRENT_PASSWORD})
    check_password(new_password, username=user.username, name=user.name)
    password_hash, token = passwords.hash_password(new_password), secrets.token_urlsafe(32)
    with write_transaction() as session:
        if get_user_for_update(session, by.user_id).password_hash != old_hash:  # changed concurrently
            raise Invalid({"current": _WRONG_CURRENT_PASSWORD})
        _store_password(session, by.user_id, password_hash, by=by, now=now, kept_session_id=kept_session_id)
        session.get(UserSession, kept_session_id).token_hash = hash_token(token)
    notify.notify_workers()
    return token


def set_password(user_id: int, password: str, *, by: Actor, now: datetime) -> None:
    """Set another user's password and end all their sessions. For one's own, `change_password` asks for the old one.

    Raises Invalid, NotFound, Conflict.
    """
    by.require(Permission.PEOPLE)
    if by.user_id == user_id:
        raise Conflict("Change your own password under “My account”, where you are asked for your current password.")
    user = people.get(user_id)
    if user is None:
        raise NotFound("There is no such user.")
    check_password(password, username=user.username, name=user.name)
    password_hash = passwords.hash_password(password)
    with write_transaction() as session:
        _store_password(session, user_id, password_hash, by=by, now=now)
    notify.notify_workers()


def reset_password(user_id: int, *, by: Actor, now: datetime) -> str:
    """Set a random password for a user, end their sessions, and return it; it is shown only once. Raises NotFound."""
    by.require(Permission.PEOPLE)
    password = "-".join(secrets.token_hex(2) for _ in range(5))  # 80 bits, in groups that can be read out
    set_password(user_id, password, by=by, now=now)
    return password


def _store_password(
    session: Session, user_id: int, password_hash: str, *, by: Actor, now: datetime, kept_session_id: int | None = None
) -> None:
    """Store a password hash; every session but `kept_session_id` ends."""
    user = get_user_for_update(session, user_id)
    user.password_hash = password_hash
    ended_ids = people.end_sessions(session, [user.id], at=now, kept_session_id=kept_session_id)
    audit.record(session, by, "person.password", "person", user.id, now=now)
    append_session_ended_events(session, user.id, map(format_session_key, ended_ids), now)
