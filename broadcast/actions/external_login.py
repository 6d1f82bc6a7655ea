"""Signing in without a password of ours: another system says who it is, and here is decided which person that is.

A person is found by what the other system never changes, then by the username; the first sign-in by name is kept, so that a
username which is given to somebody else over there opens nobody's account here.
"""

from datetime import datetime

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import audit, notify
from broadcast.actions.users import (
    add_person,
    append_viewer_changed,
    begin_session,
    end_replaced,
    keep_an_admin,
    locked,
    put_roles,
    read_person,
)
from broadcast.base.errors import Conflict, Invalid, SignInRefused
from broadcast.domain.actor import Actor
from broadcast.domain.external_identity import PROXY, Trust, Vouched
from broadcast.domain.permissions import CONSOLE_ROLES, Permission
from broadcast.store import past_viewers, provider_sessions, users
from broadcast.store.database import writing
from broadcast.store.models import PersonIdentity, User

_log = structlog.get_logger(__name__)


def sign_in(
    somebody: Vouched,
    *,
    trust: Trust,
    address: str | None,
    agent: str | None,
    now: datetime,
    replaces: str | None = None,
) -> str:
    """Begin a session for somebody whom another system vouches for, and return its token; all of it or nothing.

    Roles become what that system says, if it says any; a role that is not known here is left out and logged, and the last
    administrator stays one. `replaces` is the token of the session that this browser has had; it ends. Raises SignInRefused
    with the reason, Busy.
    """
    try:
        return _sign_in(somebody, trust, address, agent, now, replaces)
    except IntegrityError:  # the same person for the first time, twice at once: now they are known
        return _sign_in(somebody, trust, address, agent, now, replaces)


def _sign_in(
    somebody: Vouched, trust: Trust, address: str | None, agent: str | None, now: datetime, replaces: str | None
) -> str:
    with writing() as session:
        _refuse_ended(session, somebody)
        user = _find(session, somebody, trust, now) or _add(session, somebody, trust, now)
        if user.disabled_at:
            raise SignInRefused(
                f"The account of {user.username} is closed here. Ask an administrator to open it again."
            )
        is_changed = somebody.roles is not None and _follow_roles(session, user, somebody, now)
        is_changed |= end_replaced(session, replaces, now)
        token = begin_session(
            session,
            user,
            address=address,
            agent=agent,
            now=now,
            issuer=None if somebody.by == PROXY else somebody.by,
            provider_session=somebody.session,
            vouched_by=somebody.by,
        )
    if is_changed:
        notify.ring()
    return token


def _refuse_ended(session: Session, somebody: Vouched) -> None:
    """Somebody may have been signed out at the provider while they came from there. Raises SignInRefused."""
    if somebody.at is not None and provider_sessions.is_ended(
        session, somebody.by, subject=somebody.subject, provider_session=somebody.session, vouched_at=somebody.at
    ):
        raise SignInRefused("You were signed out at your organisation meanwhile. Please sign in again.")


def unlink(user_id: int, issuer: str, *, by: Actor, now: datetime) -> None:
    """Forget which account at the provider is this person's; the next sign-in with the username is the first one again.

    Raises Forbidden, NotFound, Busy.
    """
    by.require(Permission.PEOPLE)
    with writing() as session:
        user = locked(session, user_id)
        row = users.identity_at(user.id, issuer)
        if row is None:
            return
        audit.record(session, by, "person.unlinked", "person", user.id, now=now, issuer=issuer, subject=row.subject)
        session.delete(row)


def _find(session: Session, somebody: Vouched, trust: Trust, now: datetime) -> User | None:
    """The person, or None when nobody here is that. Raises SignInRefused when the name is somebody else's."""
    if not somebody.username.isascii():  # some such letters become plain ones in lower case, and so another's name
        raise SignInRefused("You signed in, but your username has letters that no username has here.")
    if somebody.subject is not None:
        user_id = users.id_by_identity(session, somebody.by, somebody.subject)
        if user_id is not None:
            return locked(session, user_id)
    if not somebody.owns_name:
        raise SignInRefused("Your organisation has not verified your e-mail address yet.")
    found = users.by_username(somebody.username.strip()[:65])
    if found is None or somebody.subject is None:
        return found and locked(session, found.id)
    user = locked(session, found.id)
    if users.identity_at(user.id, somebody.by):
        raise SignInRefused(f"{user.username} is somebody else's account here. Ask an administrator to look into it.")
    if user.password_hash and not trust.takes_over:
        raise SignInRefused(
            f"{user.username} has a password here: sign in with it, or ask an administrator to join the two accounts."
        )
    _link(session, user, somebody, now)
    return user


def _add(session: Session, somebody: Vouched, trust: Trust, now: datetime) -> User:
    if not trust.creates:
        raise SignInRefused("You signed in, but are not known here. Ask an administrator to add you.")
    try:
        username, name, _ = read_person(somebody.username, somebody.name, ())
    except Invalid as invalid:
        raise SignInRefused(f"You signed in, but cannot be added here. {invalid}") from None
    user = add_person(session, username, name, set(), password_hash=None, now=now)
    audit.record(session, _voucher(somebody), "person.created", "person", user.id, now=now, username=username, roles=[])
    if somebody.subject is not None:
        _link(session, user, somebody, now)
    return user


def _link(session: Session, user: User, somebody: Vouched, now: datetime) -> None:
    session.add(PersonIdentity(issuer=somebody.by, subject=somebody.subject, user_id=user.id, created_at=now))
    detail = {"issuer": somebody.by, "subject": somebody.subject}
    audit.record(session, _voucher(somebody), "person.linked", "person", user.id, now=now, **detail)


def _follow_roles(session: Session, user: User, somebody: Vouched, now: datetime) -> bool:
    """Give the person the roles that were told. False when nothing changes."""
    unknown = users.missing_roles(somebody.roles) - set(CONSOLE_ROLES)
    if unknown:
        _log.warning("sign_in.unknown_roles", user=user.id, by=somebody.by, roles=sorted(unknown))
    before, after = user.roles, somebody.roles - unknown
    if "admin" not in after:
        try:
            keep_an_admin(session, user)
        except Conflict:
            _log.warning("sign_in.last_admin_kept", user=user.id, by=somebody.by)
            after |= {"admin"}
    if before == after:
        return False
    users.changed(session)
    past_viewers.remember(session, User.id == user.id, at=now)
    put_roles(session, user, after)
    session.flush()
    roles = {"before": sorted(before), "after": sorted(after)}
    audit.record(session, _voucher(somebody), "person.roles", "person", user.id, now=now, **roles)
    append_viewer_changed(session, user, now)
    return True


def _voucher(somebody: Vouched) -> Actor:
    return Actor(None, somebody.by[:200])
