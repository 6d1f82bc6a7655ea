"""Sessions that an organisation's provider vouched for, and what it has ended."""

from datetime import datetime

from sqlalchemy import and_, delete, or_, select
from sqlalchemy.orm import Session

from broadcast.domain.external_identity import ProviderLogout
from broadcast.store.models import PersonIdentity, ProviderLogoutRow, UserSession


def is_known(session: Session, logout: ProviderLogout) -> bool:
    """Whether this very notice came before."""
    return session.get(ProviderLogoutRow, (logout.by, logout.token_id)) is not None


def remember(session: Session, logout: ProviderLogout) -> None:
    """Raises IntegrityError at the next flush when it came before."""
    values = {"subject": logout.subject, "provider_session": logout.session, "at": logout.at}
    session.add(ProviderLogoutRow(issuer=logout.by, token_id=logout.token_id, **values))


def forget(session: Session, *, before: datetime) -> None:
    """Drop the notices that are too old to come again, and older than any sign-in under way."""
    statement = delete(ProviderLogoutRow).where(ProviderLogoutRow.at < before)
    session.execute(statement.execution_options(synchronize_session=False))


def concerned(session: Session, logout: ProviderLogout) -> list[UserSession]:
    """The sessions that go on and that the notice ends: those of that session at the provider; of the person at the provider,
    those of which no such session is known, and all when the notice names none.
    """
    owner = select(PersonIdentity.user_id).where(
        PersonIdentity.issuer == logout.by, PersonIdentity.subject == logout.subject
    )
    is_theirs, is_that = UserSession.user_id.in_(owner), UserSession.provider_session == logout.session
    if logout.subject is None:
        is_meant = is_that
    elif logout.session is None:
        is_meant = is_theirs
    else:
        is_meant = and_(is_theirs, or_(is_that, UserSession.provider_session.is_(None)))
    query = select(UserSession).where(UserSession.issuer == logout.by, UserSession.ended_at.is_(None), is_meant)
    return list(session.scalars(query.order_by(UserSession.id)))


def is_ended(
    session: Session, issuer: str, *, subject: str | None, provider_session: str | None, vouched_at: datetime
) -> bool:
    """Whether the provider has ended already what it vouched for at `vouched_at`."""
    row = ProviderLogoutRow
    is_meant = and_(row.provider_session.is_(None), row.subject == subject, row.at >= vouched_at)
    if provider_session is not None:
        is_meant = or_(is_meant, row.provider_session == provider_session)
    return session.scalar(select(row.token_id).where(row.issuer == issuer, is_meant).limit(1)) is not None
