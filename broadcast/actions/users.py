"""People, their roles, their sessions and their tokens.

A change of roles and the end of a session are events of the log, not signals of the bus: open streams must follow them even
while Redis is away.
"""

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import audit, notify, password_rules, passwords
from broadcast.actions.user_fields import read_person, read_roles
from broadcast.base.errors import Conflict, Invalid, NotFound, SignInRefused
from broadcast.config.settings import SETTINGS
from broadcast.domain import permissions
from broadcast.domain.actor import Actor
from broadcast.domain.audience import users
from broadcast.domain.events import EVERY_SESSION, EventType
from broadcast.domain.message import is_one_line
from broadcast.domain.permissions import Permission
from broadcast.store import log, past_viewers
from broadcast.store import users as people
from broadcast.store.database import ROW_LOCK, writing
from broadcast.store.models import ApiToken, Role, User, UserRole, UserSession, setup

SCOPES = ("inbox", "admin", "events", "metrics", "embed")
LABEL_CHARACTERS = 100
_MOST_NAMED = 5000  # people in one event of the log
JUST_NOW = timedelta(minutes=10)  # for whoever has no password here to confirm something with
_NOT_PRESENT = "That is not your present password."


def hash_token(token: str) -> str:
    """SHA-256 is enough here, unlike for passwords: a token has 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


def create_person(
    username: str, password: str | None, *, roles: Iterable[str] = (), name: str | None = None, by: Actor, now: datetime
) -> int:
    """Add a person and return the id; roles that do not exist yet are made.

    Raises Forbidden, Invalid, Conflict (the username is taken), Busy.
    """
    by.require(Permission.PEOPLE)
    username, name, roles = read_person(username, name, roles)
    if password is not None:
        check_password(password, username=username, name=name)
    password_hash = password and passwords.make_hash(password)
    if people.by_username(username):
        raise _taken(username)
    try:
        with writing() as session:
            user = add_person(session, username, name, roles, password_hash=password_hash, now=now)
            audit.record(
                session, by, "person.created", "person", user.id, now=now, username=username, roles=sorted(roles)
            )
            return user.id
    except IntegrityError:  # somebody else was making the same person
        raise _taken(username) from None


def _taken(username: str) -> Conflict:
    return Conflict(f"There is a person called {username} already.")


def add_person(
    session: Session, username: str, name: str, roles: set[str], *, password_hash: str | None, now: datetime
) -> User:
    """Add a row that `read_person` has read, within the caller's transaction. Raises IntegrityError for a taken name."""
    user = User(username=username, name=name, password_hash=password_hash, created_at=now)
    session.add(user)
    session.flush()
    people.changed(session)
    put_roles(session, user, roles)
    session.flush()
    return user


def set_roles(user_id: int, roles: Iterable[str], *, by: Actor, now: datetime) -> None:
    """Replace a person's roles; their streams and pages follow within a second.

    Raises Forbidden, Invalid, NotFound, Conflict (nobody could administer any more), Busy.
    """
    by.require(Permission.PEOPLE)
    roles = read_roles(roles)
    with writing() as session:
        user = locked(session, user_id)
        before = sorted(user.roles)
        if "admin" not in roles:
            _keep_an_admin(session, user, by)
        people.changed(session)
        if set(before) != roles:
            past_viewers.remember(session, User.id == user.id, at=now)
        put_roles(session, user, roles)
        session.flush()
        audit.record(session, by, "person.roles", "person", user.id, now=now, before=before, after=sorted(roles))
        append_viewer_changed(session, user, now)
    notify.ring()


def disable(user_id: int, *, by: Actor, now: datetime) -> None:
    """Close an account: sign-in refused, sessions ended, streams closed. Raises Forbidden, NotFound, Conflict, Busy."""
    by.require(Permission.PEOPLE)
    with writing() as session:
        user = locked(session, user_id)
        _keep_an_admin(session, user, by)
        if user.disabled_at is None:
            past_viewers.remember(session, User.id == user.id, at=now)
            user.disabled_at = now
        people.changed(session)
        people.end_sessions(session, [user.id], at=now)
        audit.record(session, by, "person.disabled", "person", user.id, now=now)
        append_viewer_changed(session, user, now)
    notify.ring()


def enable(user_id: int, *, by: Actor, now: datetime) -> None:
    """Open a closed account again; opening an open one is fine. Raises Forbidden, NotFound, Busy."""
    by.require(Permission.PEOPLE)
    with writing() as session:
        user = locked(session, user_id)
        if user.disabled_at is None:
            return
        past_viewers.remember(session, User.id == user.id, at=now)
        user.disabled_at = None
        people.changed(session)
        audit.record(session, by, "person.enabled", "person", user.id, now=now)


def end_sessions(user_id: int, *, by: Actor, now: datetime, keep: int | None = None) -> None:
    """Sign a person out everywhere, and close their streams at every worker; everybody may do that to themselves.

    `keep` is a session that goes on; without it the streams of tokens end too (a program comes back, as its token is good).
    Raises Forbidden, NotFound, Busy.
    """
    if by.user_id != user_id:
        by.require(Permission.PEOPLE)
    with writing() as session:
        user = locked(session, user_id)
        ended = people.end_sessions(session, [user.id], at=now, keep=keep)
        audit.record(session, by, "person.sessions_ended", "person", user.id, now=now, sessions=len(ended))
        append_sessions_ended(session, user.id, [EVERY_SESSION] if keep is None else map(session_name, ended), now)
    notify.ring()


def end_session(session_id: int, *, by: Actor, now: datetime) -> None:
    """End one session of somebody and its streams; ending an ended one is fine. Raises Forbidden, NotFound, Busy."""
    with writing() as session:
        row = session.get(UserSession, session_id)
        if row is None or (row.user_id != by.user_id and not by.may(Permission.PEOPLE)):
            raise NotFound("There is no such session.")
        if row.ended_at:
            return
        row.ended_at = now
        audit.record(session, by, "person.session_ended", "person", row.user_id, now=now, ended=row.id)
        append_sessions_ended(session, row.user_id, [session_name(row.id)], now)
    notify.ring()


def reset_password(user_id: int, *, by: Actor, now: datetime) -> str:
    """Give a person a password that nobody chose, end their sessions, and return it; it is shown this once.

    Raises Forbidden, NotFound, Busy.
    """
    by.require(Permission.PEOPLE)
    password = "-".join(secrets.token_hex(2) for _ in range(5))  # 80 bits, in groups that can be read out
    set_password(user_id, password, by=by, now=now)
    return password


def check_password(password: str, *, username: str, name: str) -> None:
    """Raise Invalid when somebody should not have this password."""
    names = (name, SETTINGS.current.app_name)
    password_rules.check(password, username=username, names=names)


def change_password(current: str, new: str, *, by: Actor, now: datetime, keep: int) -> str:
    """Change one's own password, knowing the old one; every session but `keep` ends, and that one gets another token, which is
    returned: a copy of the cookie is worth nothing any more. Raises Invalid, Busy.
    """
    user = people.by_id(by.user_id)
    before = user.password_hash
    if not passwords.matches(current, before):
        raise Invalid({"current": _NOT_PRESENT})
    check_password(new, username=user.username, name=user.name)
    password_hash, token = passwords.make_hash(new), secrets.token_urlsafe(32)
    with writing() as session:
        if locked(session, by.user_id).password_hash != before:  # somebody gave them another meanwhile
            raise Invalid({"current": _NOT_PRESENT})
        _put_password(session, by.user_id, password_hash, by=by, now=now, keep=keep)
        session.get(UserSession, keep).token_hash = hash_token(token)
    notify.ring()
    return token


def set_password(user_id: int, password: str, *, by: Actor, now: datetime) -> None:
    """Give another person a new password and end all their sessions; one's own is changed by `change_password`, which asks for
    the old one. Raises Forbidden, Invalid, NotFound, Conflict, Busy.
    """
    by.require(Permission.PEOPLE)
    if by.user_id == user_id:
        raise Conflict("Change your own password under “My account”, where you are asked for the present one.")
    found = people.by_id(user_id)
    if found is None:
        raise NotFound("There is no such person.")
    check_password(password, username=found.username, name=found.name)
    password_hash = passwords.make_hash(password)
    with writing() as session:
        _put_password(session, user_id, password_hash, by=by, now=now)
    notify.ring()


def _put_password(
    session: Session, user_id: int, password_hash: str, *, by: Actor, now: datetime, keep: int | None = None
) -> None:
    """Every session but `keep` ends with the password it was begun with."""
    user = locked(session, user_id)
    user.password_hash = password_hash
    ended = people.end_sessions(session, [user.id], at=now, keep=keep)
    audit.record(session, by, "person.password", "person", user.id, now=now)
    append_sessions_ended(session, user.id, map(session_name, ended), now)


def sign_in(
    username: str,
    password: str,
    *,
    address: str | None,
    agent: str | None,
    now: datetime,
    only_admins: bool = False,
    replaces: str | None = None,
) -> tuple[str, int]:
    """Check a password and begin a session; return its token and the user id. Raises SignInRefused, Busy.

    Unknown names, disabled accounts, wrong passwords, and people who are no administrators when only those may, get one
    answer, after the same time. `replaces` is the token of the session that this browser has had; it ends.
    """
    user = people.by_username(username)
    password_hash = user.password_hash if user and not user.disabled_at else None
    if not passwords.matches(password, password_hash):
        raise SignInRefused()
    user_id = user.id
    with writing() as session:
        user = locked(session, user_id)
        # what changed while the password was looked at counts: it may have been changed because somebody knows the old one
        if user.password_hash != password_hash or user.disabled_at or (only_admins and not user.is_admin):
            raise SignInRefused()
        is_ended = end_replaced(session, replaces, now)
        token = begin_session(session, user, address=address, agent=agent, now=now)
    if is_ended:
        notify.ring()
    return token, user_id


def end_replaced(session: Session, token: str | None, now: datetime) -> bool:
    """End the session of `token` in this transaction: its browser signs in anew, and its old cookie may have been copied.

    False when there is none that goes on.
    """
    row = token and people.open_session(session, hash_token(token))
    if not row:
        return False
    row.ended_at = now
    user = session.get(User, row.user_id)
    audit.record(session, Actor(user.id, user.name), "person.signed_out", "person", user.id, now=now)
    append_sessions_ended(session, row.user_id, [session_name(row.id)], now)
    return True


def begin_session(
    session: Session,
    user: User,
    *,
    address: str | None,
    agent: str | None,
    now: datetime,
    issuer: str | None = None,
    provider_session: str | None = None,
    **detail: str,
) -> str:
    """A new session in this transaction; return its token, which is kept nowhere. `detail` says more in the audit. `issuer` is
    the provider that vouches for it, and may end it.
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
            agent=agent and agent[:200],
            issuer=issuer,
            provider_session=provider_session,
        )
    )
    by = Actor(user.id, user.name)
    audit.record(session, by, "person.signed_in", "person", user.id, now=now, address=address, **detail)
    return token


def sign_out(session_id: int, *, by: Actor, now: datetime) -> None:
    """End one session and its streams. Ending an ended one is fine."""
    with writing() as session:
        row = session.get(UserSession, session_id)
        if row is None or row.user_id != by.user_id or row.ended_at:
            return
        row.ended_at = now
        audit.record(session, by, "person.signed_out", "person", by.user_id, now=now)
        append_sessions_ended(session, by.user_id, [session_name(session_id)], now)
    notify.ring()


def create_token(
    user_id: int, *, scopes: Iterable[str], label: str, by: Actor, now: datetime, valid_for: timedelta | None = None
) -> str:
    """Make a token for programs and return it; it is shown this once. Raises Forbidden, Invalid, NotFound, Busy."""
    by.require(Permission.PEOPLE)
    scopes, label = sorted(set(scopes)), " ".join(label.split())
    if unknown := set(scopes) - set(SCOPES):
        raise Invalid({"scope": f"{', '.join(sorted(unknown))} is no scope; use {', '.join(SCOPES)}."})
    if not scopes:
        raise Invalid({"scope": f"Choose what the token is for: {', '.join(SCOPES)}."})
    if not 0 < len(label) <= LABEL_CHARACTERS or not is_one_line(label):
        raise Invalid({"label": f"Say what the token is for, in at most {LABEL_CHARACTERS} characters."})
    token = "bms_" + secrets.token_urlsafe(32)
    with writing() as session:
        user = locked(session, user_id)
        if user.disabled_at:
            raise Invalid({"username": f"The account of {user.username} is disabled."})
        if "admin" in scopes and not permissions.of_roles(user.roles):
            sentence = f"{user.username} is no administrator and has no other part in the console: not the scope admin."
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
    """End a token, its streams, and the embedded inboxes that it began; ending an ended one is fine.

    Raises Forbidden, NotFound, Busy.
    """
    by.require(Permission.PEOPLE)
    with writing() as session:
        row = session.get(ApiToken, token_id, with_for_update=ROW_LOCK)
        if row is None:
            raise NotFound("There is no such token.")
        if row.revoked_at:
            return
        row.revoked_at = now
        audit.record(session, by, "token.revoked", "token", row.id, now=now, label=row.label)
        end_streams_of_token(session, row, now)
    notify.ring()


def end_streams_of_token(session: Session, row: ApiToken, now: datetime) -> None:
    """End the embedded inboxes that a token began, and its streams at every worker."""
    concerned = sorted({row.user_id, *people.end_embedded(session, row.id, at=now)})
    session.flush()
    payload = {"session": token_name(row.id)}
    chunks = (concerned[start : start + _MOST_NAMED] for start in range(0, len(concerned), _MOST_NAMED))
    log.append(session, [log.Entry(EventType.SESSION_ENDED, None, users(chunk), payload) for chunk in chunks], at=now)


def token_name(token_id: int) -> str:
    """What a token is called in the hub and in the log."""
    return f"token:{token_id}"


def session_name(session_id: int) -> str:
    """What a session is called in the hub and in the log."""
    return f"session:{session_id}"


def _keep_an_admin(session: Session, user: User, by: Actor) -> None:
    """Refuse to take the last administrator away. The command line may: whoever has it can make another."""
    if by.user_id is None:
        return
    keep_an_admin(session, user)


def keep_an_admin(session: Session, user: User) -> None:
    """Raise Conflict when nobody could administer any more without this person."""
    if "admin" not in user.roles or user.disabled_at:
        return
    people.lock_role(session, "admin")  # or two of them could remove each other at the same moment
    if people.first_admin(other_than=user.id) is None:
        raise Conflict(f"{user.name} is the only administrator. Give somebody else the role admin first.")


def locked(session: Session, user_id: int) -> User:
    """The person's row, read under its lock. Raises NotFound, also for a deleted account."""
    user = session.get(User, user_id, with_for_update=ROW_LOCK | {"of": User})
    if user is None:
        raise NotFound("There is no such person.")
    if user.deleted_at:
        raise NotFound("This account was deleted.")
    return user


def put_roles(session: Session, user: User, roles: set[str]) -> None:
    """Give a person exactly these roles; those that do not exist yet are made."""
    if "admin" in roles:
        setup.void_code(session)  # whoever was the first, and however they were made
    for name in sorted(people.missing_roles(roles)):
        session.add(Role(name=name))
    session.flush()
    user.role_rows = [row for row in user.role_rows if row.role_name in roles]
    user.role_rows += [UserRole(role_name=name) for name in sorted(roles - user.roles)]


def append_viewer_changed(session: Session, user: User, now: datetime) -> None:
    """Tell every worker, in the order of the log, what the person's roles are now and whether the account is open."""
    payload = {"roles": sorted(user.roles), "disabled": user.disabled_at is not None}
    session.flush()
    log.append(session, [log.Entry(EventType.VIEWER_CHANGED, None, users([user.id]), payload)], at=now)


def append_sessions_ended(session: Session, user_id: int, names: Iterable[str], now: datetime) -> None:
    """Tell every worker, in the order of the log, to close the streams of these sessions of a person."""
    audience = users([user_id])
    session.flush()
    entries = [log.Entry(EventType.SESSION_ENDED, None, audience, {"session": name}) for name in names]
    log.append(session, entries, at=now)
