"""The users' e-mail addresses."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.orm import Session

from broadcast.store.database import build_insert, db, execute_in_chunks
from broadcast.store.models import EmailAddress, User

_IS_WORKING = and_(EmailAddress.verified_at.is_not(None), EmailAddress.failing_since.is_(None))


def get(user_id: int) -> EmailAddress | None:
    return db.session.get(EmailAddress, user_id)


def has_working_address() -> ColumnElement[bool]:
    """The condition that a User has an address that is verified and does not fail."""
    return exists().where(EmailAddress.user_id == User.id, _IS_WORKING)


def load_working(user_ids: Collection[int]) -> dict[int, str]:
    """The addresses of these users that are verified and do not fail, by user id."""
    query = select(EmailAddress.user_id, EmailAddress.address).where(_IS_WORKING)
    return dict(map(tuple, execute_in_chunks(db.session(), query, EmailAddress.user_id, user_ids)))


def load_all(user_ids: Collection[int]) -> dict[int, str]:
    """The verified addresses of these users, failing or not, by user id."""
    query = select(EmailAddress.user_id, EmailAddress.address).where(EmailAddress.address.is_not(None))
    return dict(map(tuple, execute_in_chunks(db.session(), query, EmailAddress.user_id, user_ids)))


def set_many_verified(session: Session, addresses: Mapping[int, str], *, at: datetime) -> None:
    """Store verified addresses by user id, except of who has another one."""
    if not addresses:
        return
    rows = [
        {"user_id": user_id, "address": address, "verified_at": at, "is_from_provider": False}
        for user_id, address in addresses.items()
    ]
    statement = build_insert(session, EmailAddress.__table__)
    new_values = {name: statement.excluded[name] for name in ("address", "verified_at", "is_from_provider")}
    upsert = statement.on_conflict_do_update(
        index_elements=[EmailAddress.user_id],
        set_=new_values | {"failing_since": None, "problem": None},
        where=or_(EmailAddress.address.is_(None), EmailAddress.address == statement.excluded.address),
    )
    session.execute(upsert, rows)


def set_verified(session: Session, user_id: int, address: str, *, at: datetime, is_from_provider: bool) -> None:
    """Store a verified address, in place of what the user had."""
    row = get_or_add(session, user_id)
    row.address, row.verified_at, row.is_from_provider = address, at, is_from_provider
    row.failing_since = row.problem = None
    if row.pending_address == address:
        row.pending_address = row.pending_since = None


def get_or_add(session: Session, user_id: int) -> EmailAddress:
    row = session.get(EmailAddress, user_id)
    if row is None:
        row = EmailAddress(user_id=user_id, is_from_provider=False)
        session.add(row)
    return row


def mark_failing(session: Session, user_id: int, address: str, problem: str, *, at: datetime) -> None:
    """Record that the server of this address refuses it; nothing if the user has another one meanwhile."""
    row = session.get(EmailAddress, user_id)
    if row is not None and row.address == address and row.failing_since is None:
        row.failing_since, row.problem = at, problem[:300]
