"""Sign in users whom an external identity provider has authenticated, link their identities, and follow its sign-outs.

A user is found by the provider's immutable identifier, then by username. The first sign-in by username links the
identity, so that a username reassigned at the provider opens nobody's account here.
"""

from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import notify
from broadcast.actions.sessions import SignInClient, begin_session, end_replaced_session, end_row
from broadcast.actions.users import add_user, change_roles, ensure_admin_remains, get_user_for_update, read_user_fields
from broadcast.base.errors import Conflict, Invalid, SignInRefused
from broadcast.domain.actor import Actor
from broadcast.domain.email_address import normalize_address
from broadcast.domain.external_identity import PROXY_ISSUER, ExternalIdentity, ProviderLogout, ProviderTrust
from broadcast.domain.permissions import CONSOLE_ROLES, Permission
from broadcast.store import audit, email_addresses, provider_sessions, users
from broadcast.store.models import LinkedIdentity, User
from broadcast.store.transactions import write_transaction

_log = structlog.get_logger(__name__)
_LOGOUT_TOKEN_RETENTION = timedelta(days=1)  # much longer than a logout token is valid, or a sign-in takes


def sign_in(identity: ExternalIdentity, *, trust: ProviderTrust, client: SignInClient, now: datetime) -> str:
    """Start a session for an externally authenticated user, in one transaction; return its token.

    Roles are replaced by the provider's, if it sends any; an unknown role is skipped and logged, and the last
    administrator keeps that role. Raises SignInRefused with the reason.
    """
    try:
        return _sign_in_once(identity, trust, client, now)
    except IntegrityError:  # two concurrent first sign-ins: the identity is linked now
        return _sign_in_once(identity, trust, client, now)


def _sign_in_once(identity: ExternalIdentity, trust: ProviderTrust, client: SignInClient, now: datetime) -> str:
    with write_transaction() as session:
        if provider_sessions.has_ended(session, identity):
            raise SignInRefused("You were signed out at your organisation. Please sign in again.")
        user = _find_user(session, identity, trust, now) or _add_user(session, identity, trust, now)
        if user.disabled_at:
            raise SignInRefused(f"The account of {user.username} is disabled. Ask an administrator to enable it.")
        if identity.email is not None:
            _save_email(session, user, identity.email, now)
        has_log_events = identity.roles is not None and _sync_roles(session, user, identity, now)
        has_log_events |= end_replaced_session(session, client, now)
        token = begin_session(
            session,
            user,
            client,
            now,
            issuer=None if identity.issuer == PROXY_ISSUER else identity.issuer,
            provider_session=identity.provider_session,
            vouched_by=identity.issuer,
        )
    if has_log_events:
        notify.notify_workers()
    return token


def unlink_identity(user_id: int, issuer: str, *, by: Actor, now: datetime) -> None:
    """Unlink a user's account at the provider; their next sign-in there counts as the first again. Raises NotFound."""
    by.require(Permission.PEOPLE)
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        row = users.get_external_identity(user.id, issuer)
        if row is None:
            return
        audit.record(session, by, "person.unlinked", "person", user.id, now=now, issuer=issuer, subject=row.subject)
        session.delete(row)


def _find_user(session: Session, identity: ExternalIdentity, trust: ProviderTrust, now: datetime) -> User | None:
    """The user, or None when there is none. Raises SignInRefused when the name belongs to somebody else."""
    if not identity.username.isascii():  # some such letters become ASCII in lower case, and so another's name
        raise SignInRefused(
            "You signed in, but your username has letters that are not allowed here. Ask an administrator for help."
        )
    if identity.subject is not None:
        linked = session.get(LinkedIdentity, (identity.issuer, identity.subject))
        if linked is not None:
            return get_user_for_update(session, linked.user_id)
    if not identity.is_username_verified:
        raise SignInRefused("Your organisation has not verified your e-mail address yet.")
    user_by_name = users.get_by_username(identity.username.strip()[:65])
    if user_by_name is None or identity.subject is None:
        return user_by_name and get_user_for_update(session, user_by_name.id)
    user = get_user_for_update(session, user_by_name.id)
    if users.get_external_identity(user.id, identity.issuer):
        raise SignInRefused(f"{user.username} is somebody else's account here. Ask an administrator for help.")
    if user.password_hash and not trust.may_link_accounts:
        raise SignInRefused(
            f"{user.username} has a password here. Sign in with it, or ask an administrator to link the two accounts."
        )
    _link_identity(session, user, identity, now)
    return user


def _add_user(session: Session, identity: ExternalIdentity, trust: ProviderTrust, now: datetime) -> User:
    if not trust.may_create_users:
        raise SignInRefused("You signed in, but you do not have an account here. Ask an administrator to add you.")
    try:
        username, name, _ = read_user_fields(identity.username, identity.name, ())
    except Invalid as invalid:
        raise SignInRefused(f"You signed in, but no account could be created for you here. {invalid}") from None
    user = add_user(session, username, name, set(), password_hash=None, now=now)
    by = _get_provider_actor(identity.issuer)
    audit.record(session, by, "person.created", "person", user.id, now=now, username=username, roles=[])
    if identity.subject is not None:
        _link_identity(session, user, identity, now)
    return user


def _link_identity(session: Session, user: User, identity: ExternalIdentity, now: datetime) -> None:
    detail = {"issuer": identity.issuer, "subject": identity.subject}
    session.add(LinkedIdentity(**detail, user_id=user.id, created_at=now))
    by = _get_provider_actor(identity.issuer)
    audit.record(session, by, "person.linked", "person", user.id, now=now, **detail)


def _sync_roles(session: Session, user: User, identity: ExternalIdentity, now: datetime) -> bool:
    """Set the user's roles to those the provider sent. False when nothing changes."""
    unknown_roles = users.find_missing_roles(identity.roles) - set(CONSOLE_ROLES)
    if unknown_roles:
        _log.warning("sign_in.unknown_roles", user=user.id, by=identity.issuer, roles=sorted(unknown_roles))
    new_roles = identity.roles - unknown_roles
    if "admin" not in new_roles:
        try:
            ensure_admin_remains(session, user)
        except Conflict:
            _log.warning("sign_in.last_admin_kept", user=user.id, by=identity.issuer)
            new_roles |= {"admin"}
    if user.roles == new_roles:
        return False
    change_roles(session, user, new_roles, by=_get_provider_actor(identity.issuer), now=now)
    return True


def _save_email(session: Session, user: User, text: str, now: datetime) -> None:
    """Store the address that the provider has verified, unless the user has confirmed another one."""
    try:
        address = normalize_address(text)
    except ValueError:
        return
    known = email_addresses.get_or_add(session, user.id)
    if known.address is None or (known.is_from_provider and known.address != address):
        email_addresses.set_verified(session, user.id, address, at=now, is_from_provider=True)


def _get_provider_actor(issuer: str) -> Actor:
    return Actor(None, issuer[:200])


def end_sessions(logout: ProviderLogout, *, now: datetime) -> int:
    """End the sessions that a provider's sign-out names; return how many. Raises Invalid for a repeated token."""
    by = _get_provider_actor(logout.issuer)
    try:
        with write_transaction() as session:
            provider_sessions.save_logout(session, logout)
            provider_sessions.delete_expired(session, before=now - _LOGOUT_TOKEN_RETENTION)
            session.flush()
            ended_sessions = provider_sessions.list_affected_sessions(session, logout)
            for row in ended_sessions:
                end_row(session, row, "person.session_ended", by=by, now=now, ended=row.id)
    except IntegrityError:
        raise Invalid({"logout_token": "This logout token has already been used."}) from None
    if ended_sessions:
        notify.notify_workers()
    return len(ended_sessions)
