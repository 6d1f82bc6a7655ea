"""Sign in users whom an external identity provider has authenticated, and link their identities.

A user is found by the provider's immutable identifier, then by username. The first sign-in by username links the
identity, so that a username reassigned at the provider opens nobody's account here.
"""

from datetime import datetime
from functools import partial
from typing import Any

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import notify
from broadcast.actions.sessions import begin_session, end_replaced_session
from broadcast.actions.users import (
    add_user,
    append_viewer_changed_event,
    ensure_admin_remains,
    get_user_for_update,
    read_user_fields,
    replace_roles,
)
from broadcast.base.errors import Conflict, Invalid, SignInRefused
from broadcast.domain.actor import Actor
from broadcast.domain.external_identity import PROXY_ISSUER, ExternalIdentity, ProviderTrust
from broadcast.domain.permissions import CONSOLE_ROLES, Permission
from broadcast.store import audit, past_viewers, provider_sessions, users
from broadcast.store.models import LinkedIdentity, User
from broadcast.store.transactions import write_transaction

_log = structlog.get_logger(__name__)


def sign_in(
    external_identity: ExternalIdentity,
    *,
    trust: ProviderTrust,
    address: str | None,
    user_agent: str | None,
    now: datetime,
    replaced_token: str | None = None,
) -> str:
    """Start a session for an externally authenticated user, in one transaction; return its token.

    Roles are replaced by the provider's, if it sends any; an unknown role is skipped and logged, and the last
    administrator keeps that role. `replaced_token` is the token of this browser's previous session, which ends. Raises
    SignInRefused with the reason, TemporarilyUnavailable.
    """
    sign_in_once = partial(_sign_in_once, external_identity, trust, address, user_agent, now, replaced_token)
    try:
        return sign_in_once()
    except IntegrityError:  # two concurrent first sign-ins: the identity is linked now
        return sign_in_once()


def _sign_in_once(
    external_identity: ExternalIdentity,
    trust: ProviderTrust,
    address: str | None,
    user_agent: str | None,
    now: datetime,
    replaced_token: str | None,
) -> str:
    with write_transaction() as session:
        _refuse_ended_session(session, external_identity)
        user = _find_user(session, external_identity, trust, now) or _add_user(session, external_identity, trust, now)
        if user.disabled_at:
            raise SignInRefused(f"The account of {user.username} is disabled. Ask an administrator to enable it.")
        has_log_events = external_identity.roles is not None and _sync_roles(session, user, external_identity, now)
        has_log_events |= end_replaced_session(session, replaced_token, now)
        token = begin_session(
            session,
            user,
            address=address,
            user_agent=user_agent,
            now=now,
            issuer=None if external_identity.issuer == PROXY_ISSUER else external_identity.issuer,
            provider_session=external_identity.provider_session,
            vouched_by=external_identity.issuer,
        )
    if has_log_events:
        notify.notify_workers()
    return token


def _refuse_ended_session(session: Session, external_identity: ExternalIdentity) -> None:
    """Refuse a user whom the provider signed out while they were on their way here. Raises SignInRefused."""
    if external_identity.asserted_at is not None and provider_sessions.has_ended(
        session,
        external_identity.issuer,
        subject=external_identity.subject,
        provider_session=external_identity.provider_session,
        authenticated_at=external_identity.asserted_at,
    ):
        raise SignInRefused("You were signed out at your organisation. Please sign in again.")


def unlink_identity(user_id: int, issuer: str, *, by: Actor, now: datetime) -> None:
    """Unlink a user's account at the provider; the next sign-in with the username counts as the first again.

    Raises NotFound.
    """
    by.require(Permission.PEOPLE)
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        row = users.get_external_identity(user.id, issuer)
        if row is None:
            return
        audit.record(session, by, "person.unlinked", "person", user.id, now=now, issuer=issuer, subject=row.subject)
        session.delete(row)


def _find_user(
    session: Session, external_identity: ExternalIdentity, trust: ProviderTrust, now: datetime
) -> User | None:
    """The user, or None when there is none. Raises SignInRefused when the name belongs to somebody else."""
    if not external_identity.username.isascii():  # some such letters become ASCII in lower case, and so another's name
        raise SignInRefused(
            "You signed in, but your username has letters that are not allowed here. Ask an administrator for help."
        )
    if external_identity.subject is not None:
        user_id = users.get_id_by_external_identity(session, external_identity.issuer, external_identity.subject)
        if user_id is not None:
            return get_user_for_update(session, user_id)
    if not external_identity.is_username_verified:
        raise SignInRefused("Your organisation has not verified your e-mail address yet.")
    user_by_name = users.get_by_username(external_identity.username.strip()[:65])
    if user_by_name is None or external_identity.subject is None:
        return user_by_name and get_user_for_update(session, user_by_name.id)
    user = get_user_for_update(session, user_by_name.id)
    if users.get_external_identity(user.id, external_identity.issuer):
        raise SignInRefused(f"{user.username} is somebody else's account here. Ask an administrator for help.")
    if user.password_hash and not trust.may_link_accounts:
        raise SignInRefused(
            f"{user.username} has a password here. Sign in with it, or ask an administrator to link the two accounts."
        )
    _link_identity(session, user, external_identity, now)
    return user


def _add_user(session: Session, external_identity: ExternalIdentity, trust: ProviderTrust, now: datetime) -> User:
    if not trust.may_create_users:
        raise SignInRefused("You signed in, but you do not have an account here. Ask an administrator to add you.")
    try:
        username, name, _ = read_user_fields(external_identity.username, external_identity.name, ())
    except Invalid as invalid:
        raise SignInRefused(f"You signed in, but no account could be created for you here. {invalid}") from None
    user = add_user(session, username, name, set(), password_hash=None, now=now)
    _record_audit(session, external_identity, "person.created", user, now, username=username, roles=[])
    if external_identity.subject is not None:
        _link_identity(session, user, external_identity, now)
    return user


def _link_identity(session: Session, user: User, external_identity: ExternalIdentity, now: datetime) -> None:
    detail = {"issuer": external_identity.issuer, "subject": external_identity.subject}
    session.add(LinkedIdentity(**detail, user_id=user.id, created_at=now))
    _record_audit(session, external_identity, "person.linked", user, now, **detail)


def _sync_roles(session: Session, user: User, external_identity: ExternalIdentity, now: datetime) -> bool:
    """Set the user's roles to those the provider sent. False when nothing changes."""
    unknown_roles = users.find_missing_roles(external_identity.roles) - set(CONSOLE_ROLES)
    if unknown_roles:
        _log.warning("sign_in.unknown_roles", user=user.id, by=external_identity.issuer, roles=sorted(unknown_roles))
    old_roles, new_roles = user.roles, external_identity.roles - unknown_roles
    if "admin" not in new_roles:
        try:
            ensure_admin_remains(session, user)
        except Conflict:
            _log.warning("sign_in.last_admin_kept", user=user.id, by=external_identity.issuer)
            new_roles |= {"admin"}
    if old_roles == new_roles:
        return False
    users.bump_membership_version(session)
    past_viewers.close_current_periods(session, User.id == user.id, at=now)
    replace_roles(session, user, new_roles)
    session.flush()
    detail = {"before": sorted(old_roles), "after": sorted(new_roles)}
    _record_audit(session, external_identity, "person.roles", user, now, **detail)
    append_viewer_changed_event(session, user, now)
    return True


def _record_audit(
    session: Session, external_identity: ExternalIdentity, action: str, user: User, now: datetime, **detail: Any
) -> None:
    """The provider is the actor."""
    by = Actor(None, external_identity.issuer[:200])
    audit.record(session, by, action, "person", user.id, now=now, **detail)
