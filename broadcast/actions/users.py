"""Users, their roles, sessions and tokens.

A change of roles and the end of a session are events of the log, not signals of the bus: open streams must follow them
even while Redis is away.
"""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import audit, notify, password_rules, passwords
from broadcast.actions.user_fields import read_role_names, read_user_fields
from broadcast.base.cooperative import split_into_chunks
from broadcast.base.errors import Conflict, Invalid, NotFound, SignInRefused
from broadcast.config.settings import SETTINGS
from broadcast.domain import permissions
from broadcast.domain.actor import Actor
from broadcast.domain.audience import make_user_audience
from broadcast.domain.events import ALL_SESSIONS, EventType
from broadcast.domain.message import is_single_line
from broadcast.domain.permissions import Permission
from broadcast.store import log, past_viewers
from broadcast.store import users as people
from broadcast.store.database import ROW_LOCK
from broadcast.store.models import ApiToken, Role, User, UserRole, UserSession, setup
from broadcast.store.transactions import write_transaction

TOKEN_SCOPES = ("inbox", "admin", "events", "metrics", "embed")
MAX_LABEL_CHARACTERS = 100
_MAX_USERS_PER_EVENT = 5000  # users in one event of the log
RECENT_SIGN_IN = timedelta(minutes=10)  # lets users without a password here confirm something
_WRONG_CURRENT_PASSWORD = "Your current password is incorrect."


def hash_token(token: str) -> str:
    """Hash a token. SHA-256 is enough here, unlike for passwords: a token has 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


def create_user(
    username: str, password: str | None, *, roles: Iterable[str] = (), name: str | None = None, by: Actor, now: datetime
) -> int:
    """Create a user and return the id; missing roles are created.

    Raises Forbidden, Invalid, Conflict (the username is taken), TemporarilyUnavailable.
    """
    by.require(Permission.PEOPLE)
    username, name, roles = read_user_fields(username, name, roles)
    if password is not None:
        check_password(password, username=username, name=name)
    password_hash = password and passwords.hash_password(password)
    if people.get_by_username(username):
        raise _username_conflict(username)
    try:
        with write_transaction() as session:
            user = add_user(session, username, name, roles, password_hash=password_hash, now=now)
            audit.record(
                session, by, "person.created", "person", user.id, now=now, username=username, roles=sorted(roles)
            )
            return user.id
    except IntegrityError:  # the username was taken concurrently
        raise _username_conflict(username) from None


def _username_conflict(username: str) -> Conflict:
    return Conflict(f"There is a user called {username} already.")


def add_user(
    session: Session, username: str, name: str, roles: set[str], *, password_hash: str | None, now: datetime
) -> User:
    """Add a user with fields from `read_user_fields`, within the caller's transaction.

    Raises IntegrityError for a taken username.
    """
    user = User(username=username, name=name, password_hash=password_hash, created_at=now)
    session.add(user)
    session.flush()
    people.bump_membership_version(session)
    replace_roles(session, user, roles)
    session.flush()
    return user


def set_roles(user_id: int, roles: Iterable[str], *, by: Actor, now: datetime) -> None:
    """Replace a user's roles; their streams and pages follow within a second.

    Raises Forbidden, Invalid, NotFound, Conflict (no administrator would remain), TemporarilyUnavailable.
    """
    by.require(Permission.PEOPLE)
    roles = read_role_names(roles)
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        old_roles = sorted(user.roles)
        if "admin" not in roles:
            _ensure_admin_remains_unless_cli(session, user, by)
        people.bump_membership_version(session)
        if set(old_roles) != roles:
            past_viewers.close_current_periods(session, User.id == user.id, at=now)
        replace_roles(session, user, roles)
        session.flush()
        audit.record(session, by, "person.roles", "person", user.id, now=now, before=old_roles, after=sorted(roles))
        append_viewer_changed_event(session, user, now)
    notify.notify_workers()


def disable_user(user_id: int, *, by: Actor, now: datetime) -> None:
    """Disable an account: sign-in is refused, sessions end, streams close.

    Raises Forbidden, NotFound, Conflict, TemporarilyUnavailable.
    """
    by.require(Permission.PEOPLE)
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        _ensure_admin_remains_unless_cli(session, user, by)
        if user.disabled_at is None:
            past_viewers.close_current_periods(session, User.id == user.id, at=now)
            user.disabled_at = now
        people.bump_membership_version(session)
        people.end_sessions(session, [user.id], at=now)
        audit.record(session, by, "person.disabled", "person", user.id, now=now)
        append_viewer_changed_event(session, user, now)
    notify.notify_workers()


def enable_user(user_id: int, *, by: Actor, now: datetime) -> None:
    """Enable a disabled account; idempotent. Raises Forbidden, NotFound, TemporarilyUnavailable."""
    by.require(Permission.PEOPLE)
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        if user.disabled_at is None:
            return
        past_viewers.close_current_periods(session, User.id == user.id, at=now)
        user.disabled_at = None
        people.bump_membership_version(session)
        audit.record(session, by, "person.enabled", "person", user.id, now=now)


def end_sessions(user_id: int, *, by: Actor, now: datetime, kept_session_id: int | None = None) -> None:
    """Sign a user out everywhere and close their streams on every worker. Users may do that to themselves.

    `kept_session_id` is a session to keep; without it the streams of tokens end too (a program reconnects, as its token
    stays valid). Raises Forbidden, NotFound, TemporarilyUnavailable.
    """
    if by.user_id != user_id:
        by.require(Permission.PEOPLE)
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        ended_ids = people.end_sessions(session, [user.id], at=now, kept_session_id=kept_session_id)
        audit.record(session, by, "person.sessions_ended", "person", user.id, now=now, sessions=len(ended_ids))
        append_session_ended_events(
            session, user.id, [ALL_SESSIONS] if kept_session_id is None else map(format_session_key, ended_ids), now
        )
    notify.notify_workers()


def end_session(session_id: int, *, by: Actor, now: datetime) -> None:
    """End one session of a user and its streams; idempotent.

    Raises Forbidden, NotFound, TemporarilyUnavailable.
    """
    with write_transaction() as session:
        row = session.get(UserSession, session_id)
        if row is None or (row.user_id != by.user_id and not by.may(Permission.PEOPLE)):
            raise NotFound("There is no such session.")
        if row.ended_at:
            return
        row.ended_at = now
        audit.record(session, by, "person.session_ended", "person", row.user_id, now=now, ended=row.id)
        append_session_ended_events(session, row.user_id, [format_session_key(row.id)], now)
    notify.notify_workers()


def reset_password(user_id: int, *, by: Actor, now: datetime) -> str:
    """Set a random password for a user, end their sessions, and return it; it is shown only once.

    Raises Forbidden, NotFound, TemporarilyUnavailable.
    """
    by.require(Permission.PEOPLE)
    password = "-".join(secrets.token_hex(2) for _ in range(5))  # 80 bits, in groups that can be read out
    set_password(user_id, password, by=by, now=now)
    return password


def check_password(password: str, *, username: str, name: str) -> None:
    """Raise Invalid when the password is not allowed for this user."""
    names = (name, SETTINGS.current.app_name)
    password_rules.check(password, username=username, names=names)


def change_password(current_password: str, new_password: str, *, by: Actor, now: datetime, kept_session_id: int) -> str:
    """Change one's own password, given the current one. Every session but `kept_session_id` ends; that one gets a new
    token, which is returned, so that a copied cookie becomes worthless.

    Raises Invalid, TemporarilyUnavailable.
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

    Raises Forbidden, Invalid, NotFound, Conflict, TemporarilyUnavailable.
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


def _store_password(
    session: Session, user_id: int, password_hash: str, *, by: Actor, now: datetime, kept_session_id: int | None = None
) -> None:
    """Store a password hash; every session but `kept_session_id` ends."""
    user = get_user_for_update(session, user_id)
    user.password_hash = password_hash
    ended_ids = people.end_sessions(session, [user.id], at=now, kept_session_id=kept_session_id)
    audit.record(session, by, "person.password", "person", user.id, now=now)
    append_session_ended_events(session, user.id, map(format_session_key, ended_ids), now)


def sign_in(
    username: str,
    password: str,
    *,
    address: str | None,
    user_agent: str | None,
    now: datetime,
    is_admin_only: bool = False,
    replaced_token: str | None = None,
) -> tuple[str, int]:
    """Check a password and start a session; return its token and the user id. Raises SignInRefused,
    TemporarilyUnavailable.

    Unknown names, disabled accounts, wrong passwords, and (with `is_admin_only`) users who are not administrators get
    the same answer after the same time. `replaced_token` is the token of this browser's previous session, which ends.
    """
    user = people.get_by_username(username)
    password_hash = user.password_hash if user and not user.disabled_at else None
    if not passwords.verify_password(password, password_hash):
        raise SignInRefused()
    user_id = user.id
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        # check again what changed during verification: somebody else may know the old password
        if user.password_hash != password_hash or user.disabled_at or (is_admin_only and not user.is_admin):
            raise SignInRefused()
        has_ended_session = end_replaced_session(session, replaced_token, now)
        token = begin_session(session, user, address=address, user_agent=user_agent, now=now)
    if has_ended_session:
        notify.notify_workers()
    return token, user_id


def end_replaced_session(session: Session, token: str | None, now: datetime) -> bool:
    """End the session of `token` in this transaction: its browser signs in again, and the old cookie may be copied.

    False when there is no such open session.
    """
    row = token and people.get_open_session(session, hash_token(token))
    if not row:
        return False
    row.ended_at = now
    user = session.get(User, row.user_id)
    audit.record(session, Actor(user.id, user.name), "person.signed_out", "person", user.id, now=now)
    append_session_ended_events(session, row.user_id, [format_session_key(row.id)], now)
    return True


def begin_session(
    session: Session,
    user: User,
    *,
    address: str | None,
    user_agent: str | None,
    now: datetime,
    issuer: str | None = None,
    provider_session: str | None = None,
    **detail: str,
) -> str:
    """Create a session in this transaction; return its token, which is stored nowhere. `detail` goes into the audit.
    `issuer` is the provider that authenticated it, and may end it.
    """
    token = secrets.token_urlsafe(32)
    user.first_sign_in_at = user.first_sign_in_at or now
    session.add(
        UserSession(
            token_hash=hash_token(token),
            user_id=user.id,
            created_at=now,
            seen_at=now,
            address=address,
            agent=user_agent and user_agent[:200],
            issuer=issuer,
            provider_session=provider_session,
        )
    )
    by = Actor(user.id, user.name)
    audit.record(session, by, "person.signed_in", "person", user.id, now=now, address=address, **detail)
    return token


def sign_out(session_id: int, *, by: Actor, now: datetime) -> None:
    """End one session and its streams; idempotent."""
    with write_transaction() as session:
        row = session.get(UserSession, session_id)
        if row is None or row.user_id != by.user_id or row.ended_at:
            return
        row.ended_at = now
        audit.record(session, by, "person.signed_out", "person", by.user_id, now=now)
        append_session_ended_events(session, by.user_id, [format_session_key(session_id)], now)
    notify.notify_workers()


def create_token(
    user_id: int, *, scopes: Iterable[str], label: str, by: Actor, now: datetime, valid_for: timedelta | None = None
) -> str:
    """Create an API token and return it; it is shown only once.

    Raises Forbidden, Invalid, NotFound, TemporarilyUnavailable.
    """
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
        expires_at = now + valid_for if valid_for else None
        row = ApiToken(
            token_hash=hash_token(token),
            user_id=user.id,
            label=label,
            scopes=" ".join(scopes),
            created_at=now,
            expires_at=expires_at,
        )
        session.add(row)
        session.flush()
        audit.record(session, by, "token.created", "token", row.id, now=now, person=user.username, scopes=scopes)
    return token


def revoke_token(token_id: int, *, by: Actor, now: datetime) -> None:
    """Revoke a token and end its streams and its embedded sessions; idempotent.

    Raises Forbidden, NotFound, TemporarilyUnavailable.
    """
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
    chunks = split_into_chunks(affected_ids, _MAX_USERS_PER_EVENT)
    log.append(
        session,
        [log.NewEvent(EventType.SESSION_ENDED, None, make_user_audience(chunk), payload) for chunk in chunks],
        at=now,
    )


def format_token_key(token_id: int) -> str:
    """The key of a token in the hub and in the log."""
    return f"token:{token_id}"


def format_session_key(session_id: int) -> str:
    """The key of a session in the hub and in the log."""
    return f"session:{session_id}"


def _ensure_admin_remains_unless_cli(session: Session, user: User, by: Actor) -> None:
    """Refuse to remove the last administrator. The command line may: it can create another."""
    if by.user_id is None:
        return
    ensure_admin_remains(session, user)


def ensure_admin_remains(session: Session, user: User) -> None:
    """Raise Conflict when no administrator would remain without this user."""
    if "admin" not in user.roles or user.disabled_at:
        return
    people.lock_role(session, "admin")  # else two administrators could remove each other concurrently
    if people.get_first_admin(excluded_user_id=user.id) is None:
        raise Conflict(f"{user.name} is the only administrator. Give somebody else the role admin first.")


def get_user_for_update(session: Session, user_id: int) -> User:
    """The user's row, locked. Raises NotFound, also for a deleted account."""
    user = session.get(User, user_id, with_for_update=ROW_LOCK | {"of": User})
    if user is None:
        raise NotFound("There is no such user.")
    if user.deleted_at:
        raise NotFound("This account was deleted.")
    return user


def replace_roles(session: Session, user: User, roles: set[str]) -> None:
    """Set a user's roles to exactly these; missing roles are created."""
    if "admin" in roles:
        setup.delete_code(session)  # an administrator exists now, however created
    for name in sorted(people.find_missing_roles(roles)):
        session.add(Role(name=name))
    session.flush()
    user.role_rows = [row for row in user.role_rows if row.role_name in roles]
    user.role_rows += [UserRole(role_name=name) for name in sorted(roles - user.roles)]


def append_viewer_changed_event(session: Session, user: User, now: datetime) -> None:
    """Append the event that tells every worker the user's current roles and whether the account is enabled."""
    payload = {"roles": sorted(user.roles), "disabled": user.disabled_at is not None}
    session.flush()
    log.append(session, [log.NewEvent(EventType.VIEWER_CHANGED, None, make_user_audience([user.id]), payload)], at=now)


def append_session_ended_events(session: Session, user_id: int, session_keys: Iterable[str], now: datetime) -> None:
    """Append the events that make every worker close the streams of these sessions."""
    audience = make_user_audience([user_id])
    session.flush()
    entries = [log.NewEvent(EventType.SESSION_ENDED, None, audience, {"session": name}) for name in session_keys]
    log.append(session, entries, at=now)
