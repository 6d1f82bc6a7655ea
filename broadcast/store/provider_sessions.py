"""Sessions that an identity provider authenticated, and those it has ended."""

from datetime import datetime

from sqlalchemy import and_, delete, or_, select
from sqlalchemy.orm import Session

from broadcast.domain.external_identity import ExternalIdentity, ProviderLogout
from broadcast.store.models import LinkedIdentity, ProviderLogoutRow, UserSession


def save_logout(session: Session, logout: ProviderLogout) -> None:
    """Store a logout token. A repeated one raises IntegrityError at the next flush."""
    values = {"subject": logout.subject, "provider_session": logout.provider_session, "at": logout.issued_at}
    session.add(ProviderLogoutRow(issuer=logout.issuer, token_id=logout.token_id, **values))


def delete_expired(session: Session, *, before: datetime) -> None:
    """Delete logout tokens too old to be repeated, and older than any sign-in in progress."""
    statement = delete(ProviderLogoutRow).where(ProviderLogoutRow.at < before)
    session.execute(statement.execution_options(synchronize_session=False))


def list_affected_sessions(session: Session, logout: ProviderLogout) -> list[UserSession]:
    """The open sessions that the logout token ends: those with its provider session, and of its subject those without a
    known provider session, or all when it names no session.
    """
    is_linked = (LinkedIdentity.issuer == logout.issuer, LinkedIdentity.subject == logout.subject)
    is_of_user = UserSession.user_id.in_(select(LinkedIdentity.user_id).where(*is_linked))
    is_same_session = UserSession.provider_session == logout.provider_session
    if logout.subject is None:
        is_affected = is_same_session
    elif logout.provider_session is None:
        is_affected = is_of_user
    else:
        is_affected = and_(is_of_user, or_(is_same_session, UserSession.provider_session.is_(None)))
    query = select(UserSession).where(UserSession.issuer == logout.issuer, UserSession.ended_at.is_(None), is_affected)
    return list(session.scalars(query.order_by(UserSession.id)))


def has_ended(session: Session, identity: ExternalIdentity) -> bool:
    """Whether the provider has signed the user out while they were on their way here."""
    if identity.asserted_at is None:
        return False
    row = ProviderLogoutRow
    is_affected = and_(row.provider_session.is_(None), row.subject == identity.subject, row.at >= identity.asserted_at)
    if identity.provider_session is not None:
        is_affected = or_(is_affected, row.provider_session == identity.provider_session)
    return session.scalar(select(row.token_id).where(row.issuer == identity.issuer, is_affected).limit(1)) is not None
