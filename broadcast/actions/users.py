"""Users and their roles, and what may be typed about them: username, name, roles.

A change of roles is an event of the log, not a signal of the bus: open streams must follow it even while Redis is away.
"""

import re
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import notify, passwords
from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.domain.actor import Actor
from broadcast.domain.audience import make_user_audience
from broadcast.domain.events import EventType
from broadcast.domain.message import is_single_line
from broadcast.domain.permissions import Permission
from broadcast.store import audit, invitations, log, past_viewers
from broadcast.store import users as people
from broadcast.store.database import ROW_LOCK
from broadcast.store.models import User, UserRole
from broadcast.store.transactions import write_transaction

MAX_ROLES = 200  # per user
_USERNAME_PATTERN = re.compile(r"[a-z][a-z0-9._@-]{0,63}")  # starts with a letter: digits alone are a user id
_ROLE_PATTERN = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def clean_display_name(name: str) -> str:
    """A normalised display name. Raises Invalid."""
    name = " ".join(name.split())
    if not 0 < len(name) <= 200 or not is_single_line(name):
        raise Invalid({"name": "A name must have 1 to 200 characters."})
    return name


def read_user_fields(username: str, name: str | None, roles: Iterable[str]) -> tuple[str, str, set[str]]:
    """Normalised username, name and roles. Raises Invalid with a message for each invalid field."""
    problems: dict[str, str] = {}
    username = username.strip().lower()
    if not _USERNAME_PATTERN.fullmatch(username):
        problems["username"] = "A username starts with a letter and has up to 64 letters, digits, dots, -, _ or @."
    name = " ".join((name or "").split()) or username.capitalize()
    try:
        name = name if "username" in problems else clean_display_name(name)
    except Invalid as invalid:
        problems |= invalid.fields
    try:
        roles = read_role_names(roles)
    except Invalid as invalid:
        problems |= invalid.fields
    if problems:
        raise Invalid(problems)
    return username, name, set(roles)


def read_role_names(roles: Iterable[str]) -> set[str]:
    """Normalised role names. Raises Invalid."""
    names = {role.strip().lower() for role in roles}
    if len(names) > MAX_ROLES:
        raise Invalid({"roles": f"A user can have at most {MAX_ROLES} roles."})
    if invalid_names := sorted(name for name in names if not _ROLE_PATTERN.fullmatch(name)):
        raise Invalid({"roles": f"{invalid_names[0]!r} cannot be a role: use a letter, then letters, digits, - or _."})
    return names


def create_user(
    username: str, password: str | None, *, roles: Iterable[str] = (), name: str | None = None, by: Actor, now: datetime
) -> int:
    """Create a user and return the id; missing roles are created. Raises Invalid, Conflict (the username is taken)."""
    by.require(Permission.PEOPLE)
    username, name, roles = read_user_fields(username, name, roles)
    if password is not None:
        passwords.check_password(password, username=username, name=name)
    password_hash = password and passwords.hash_password(password)
    try:
        with write_transaction() as session:
            user = add_user(session, username, name, roles, password_hash=password_hash, now=now)
            detail = {"username": username, "roles": sorted(roles)}
            audit.record(session, by, "person.created", "person", user.id, now=now, **detail)
            return user.id
    except IntegrityError:
        raise Conflict(f"There is a user called {username} already.") from None


def add_user(
    session: Session, username: str, name: str, roles: set[str], *, password_hash: str | None, now: datetime
) -> User:
    """Add a user with fields from `read_user_fields` in this transaction. Raises IntegrityError for a taken name."""
    user = User(username=username, name=name, password_hash=password_hash, created_at=now)
    session.add(user)
    session.flush()
    people.bump_membership_version(session)
    _replace_role_rows(session, user, roles)
    session.flush()
    return user


def set_roles(user_id: int, roles: Iterable[str], *, by: Actor, now: datetime) -> None:
    """Replace a user's roles; their streams and pages follow. Raises Invalid, NotFound, Conflict (no administrator)."""
    by.require(Permission.PEOPLE)
    roles = read_role_names(roles)
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        if "admin" not in roles:
            _ensure_admin_remains_unless_cli(session, user, by)
        change_roles(session, user, roles, by=by, now=now)
    notify.notify_workers()


def change_roles(session: Session, user: User, roles: set[str], *, by: Actor, now: datetime) -> None:
    """Replace a user's roles, within the caller's transaction."""
    old_roles = sorted(user.roles)
    people.bump_membership_version(session)
    if set(old_roles) != roles:
        past_viewers.close_current_periods(session, User.id == user.id, at=now)
    _replace_role_rows(session, user, roles)
    session.flush()
    audit.record(session, by, "person.roles", "person", user.id, now=now, before=old_roles, after=sorted(roles))
    append_viewer_changed_event(session, user, now)


def disable_user(user_id: int, *, by: Actor, now: datetime) -> None:
    """Disable an account: sign-in is refused, sessions end, streams close. Raises NotFound, Conflict."""
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
    """Enable a disabled account; idempotent. Raises NotFound."""
    by.require(Permission.PEOPLE)
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        if user.disabled_at is None:
            return
        past_viewers.close_current_periods(session, User.id == user.id, at=now)
        user.disabled_at = None
        people.bump_membership_version(session)
        audit.record(session, by, "person.enabled", "person", user.id, now=now)


def _ensure_admin_remains_unless_cli(session: Session, user: User, by: Actor) -> None:
    """Refuse to remove the last administrator. The command line may: it can create another."""
    if by.user_id is not None:
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


def _replace_role_rows(session: Session, user: User, roles: set[str]) -> None:
    """Set a user's roles to exactly these; missing roles are created."""
    if "admin" in roles:
        invitations.delete_setup_code(session)  # an administrator exists now, however created
    people.add_missing_roles(session, roles)
    user.role_rows = [row for row in user.role_rows if row.role_name in roles]
    user.role_rows += [UserRole(role_name=name) for name in sorted(roles - user.roles)]


def append_viewer_changed_event(session: Session, user: User, now: datetime) -> None:
    """Append the event that tells every worker the user's current roles and whether the account is enabled."""
    payload = {"roles": sorted(user.roles), "disabled": user.disabled_at is not None}
    session.flush()
    log.append(session, [log.NewEvent(EventType.VIEWER_CHANGED, None, make_user_audience([user.id]), payload)], at=now)
