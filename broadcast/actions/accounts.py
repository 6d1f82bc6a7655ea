"""One account: the first administrator, and the name, password, preferences and deletion of any."""

import secrets
from datetime import datetime
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import notify, passwords
from broadcast.actions import users as user_actions
from broadcast.actions.sessions import append_session_ended_events, format_session_key
from broadcast.actions.tokens import end_token_streams, hash_token
from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.config.settings import SETTINGS
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.permissions import Permission
from broadcast.domain.preferences import Preferences, parse_preferences
from broadcast.store import audit, digests, invitations, past_viewers, receipts, users
from broadcast.store.models import User, UserSession
from broadcast.store.transactions import write_transaction

_WRONG_CURRENT_PASSWORD = "Your current password is incorrect."
_WRONG_CODE = "This setup code is not valid. Use the newest code that was printed. Each code works once."
_ALREADY_SET_UP = "There is an administrator already. Sign in, or ask an administrator for an account."


def create_setup_code(*, now: datetime) -> str | None:
    """Create a code for the first administrator; the previous one becomes void. None when there is an administrator.

    It is shown where the system is started, so that a stranger who finds the page first can do nothing.
    """
    with write_transaction() as session:
        if users.has_administrator():
            return None
        code = "-".join(secrets.token_hex(2) for _ in range(5))  # 80 bits, in groups that can be read out
        invitations.replace_setup_code(session, hash_token(code), at=now)
    return code


def create_first_administrator(code: str, username: str, password: str, *, name: str | None, now: datetime) -> int:
    """Consume the code and create the first administrator; return the id. Raises Invalid, Conflict."""
    if users.has_administrator():
        raise Conflict(_ALREADY_SET_UP)
    username, name, roles = user_actions.read_user_fields(username, name, ["admin"])
    passwords.check_password(password, username=username, name=name)
    password_hash = passwords.hash_password(password)
    try:
        with write_transaction() as session:
            if users.has_administrator():
                raise Conflict(_ALREADY_SET_UP)
            if not invitations.consume_setup_code(session, hash_token(code.strip().lower())):
                raise Invalid({"code": _WRONG_CODE})
            user = user_actions.add_user(session, username, name, roles, password_hash=password_hash, now=now)
            audit.record(session, SYSTEM, "person.first_administrator", "person", user.id, now=now, username=username)
            return user.id
    except IntegrityError:
        raise Invalid({"username": f"There is a user called {username} already."}) from None


def rename(user_id: int, name: str, *, by: Actor, now: datetime) -> None:
    """Correct a user's name. Broadcasts already sent keep the old name. Raises Invalid, NotFound."""
    by.require(Permission.PEOPLE)
    name = user_actions.clean_display_name(name)
    with write_transaction() as session:
        user = user_actions.get_user_for_update(session, user_id)
        if user.name == name:
            return
        audit.record(session, by, "person.renamed", "person", user.id, now=now, before=user.name, after=name)
        users.rename(session, user, name)


def delete(user_id: int, *, typed_username: str, by: Actor, now: datetime) -> None:
    """Delete an account for good, after the caller has typed its username.

    Personal data is removed, except in the audit and in the sender names of sent broadcasts. Receipts stay, as those of
    a former user. Drafts and scheduled broadcasts stay for others to continue; a scheduled one that falls due waits for
    a decision. The username becomes available again. Raises Invalid, NotFound, Conflict (the last administrator).
    """
    by.require(Permission.PEOPLE)
    with write_transaction() as session:
        user = user_actions.get_user_for_update(session, user_id)
        if typed_username.strip().lower() != user.username:
            raise Invalid({"typedUsername": f"Type {user.username} to confirm."})
        user_actions.ensure_admin_remains(session, user)
        user_details = {"username": user.username, "name": user.name}
        audit.record(session, by, "person.deleted", "person", user.id, now=now, **user_details)
        for token in users.list_user_tokens(session, user.id):
            end_token_streams(session, token, now)
        past_viewers.close_current_periods(session, User.id == user.id, at=now)
        users.bump_membership_version(session)
        users.anonymize(session, user, at=now)
        user_actions.append_viewer_changed_event(session, user, now)
    notify.notify_workers()


def change_password(current_password: str, new_password: str, *, by: Actor, now: datetime, kept_session_id: int) -> str:
    """Change one's own password, given the current one. Every session but `kept_session_id` ends; that one gets a new
    token, which is returned, so that a copied cookie becomes worthless. Raises Invalid.
    """
    user = users.get(by.user_id)
    old_hash = user.password_hash
    if not passwords.verify_password(current_password, old_hash):
        raise Invalid({"current": _WRONG_CURRENT_PASSWORD})
    passwords.check_password(new_password, username=user.username, name=user.name)
    password_hash, token = passwords.hash_password(new_password), secrets.token_urlsafe(32)
    with write_transaction() as session:
        if user_actions.get_user_for_update(session, by.user_id).password_hash != old_hash:  # changed concurrently
            raise Invalid({"current": _WRONG_CURRENT_PASSWORD})
        _store_password(session, by.user_id, password_hash, by=by, now=now, kept_session_id=kept_session_id)
        session.get(UserSession, kept_session_id).token_hash = hash_token(token)
    notify.notify_workers()
    return token


def set_password(user_id: int, password: str, *, by: Actor, now: datetime) -> None:
    """Set another user's password and end all their sessions. Raises Invalid, NotFound, Conflict (one's own)."""
    by.require(Permission.PEOPLE)
    if by.user_id == user_id:
        raise Conflict("Change your own password under “My account”, where you are asked for your current password.")
    user = users.get(user_id)
    if user is None:
        raise NotFound("There is no such user.")
    passwords.check_password(password, username=user.username, name=user.name)
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
    user = user_actions.get_user_for_update(session, user_id)
    user.password_hash = password_hash
    ended_ids = users.end_sessions(session, [user.id], at=now, kept_session_id=kept_session_id)
    audit.record(session, by, "person.password", "person", user.id, now=now)
    append_session_ended_events(session, user.id, map(format_session_key, ended_ids), now)


def save_preferences(raw: dict[str, Any], *, by: Actor, now: datetime) -> Preferences:
    """Replace a user's preferences and notify their open pages. Raises Invalid."""
    preferences = parse_preferences(raw, now=now, mandatory=SETTINGS.current.mandatory_categories)
    with write_transaction() as session:
        users.set_preferences(session, by.user_id, preferences)
        digests.schedule(session, by.user_id, preferences, now=now)
        version = receipts.increment_inbox_version(session, by.user_id, at=now)
    notify.notify_receipt(by.user_id, "preferences", [], version)
    return preferences
