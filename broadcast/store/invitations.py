"""Invitations, links with which users choose a first password, and the setup code for the first administrator."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Select, and_, delete, func, insert, select
from sqlalchemy.orm import Session

from broadcast.store.database import ROW_LOCK, db, execute_in_chunks
from broadcast.store.models import Invitation, SetupCode, User

_is_invitable = and_(User.password_hash.is_(None), User.disabled_at.is_(None))
_open_query = select(Invitation, User).join(User, User.id == Invitation.user_id)


class OpenInvitation(NamedTuple):
    """An invitation that is neither used nor revoked, with its user. It may have expired."""

    invitation: Invitation
    user: User


def get_by_token_hash(token_hash: str) -> OpenInvitation | None:
    row = db.session.execute(_open_query.where(Invitation.token_hash == token_hash)).one_or_none()
    return row and OpenInvitation(*row)


def get_for_user(user_id: int) -> Invitation | None:
    return db.session.get(Invitation, user_id)


def list_page(*, after: int = 0, limit: int) -> list[OpenInvitation]:
    """One page of open invitations, by user id."""
    query = _open_query.where(Invitation.user_id > after).order_by(Invitation.user_id).limit(limit)
    return [OpenInvitation(*row) for row in db.session.execute(query)]


def count() -> int:
    return db.session.scalar(select(func.count()).select_from(Invitation))


def count_uninvited() -> int:
    """How many users cannot sign in with a password and have no invitation."""
    return db.session.scalar(_select_uninvited(func.count()))


def list_uninvited_ids(*, limit: int) -> list[int]:
    """Ids of these users, oldest account first."""
    return list(db.session.scalars(_select_uninvited(User.id).order_by(User.id).limit(limit)))


def lock_invitable_users(session: Session, user_ids: Sequence[int]) -> list[User]:
    """Those of these users who are enabled and have no password, by id; locked until the transaction ends."""
    query = select(User).where(_is_invitable).order_by(User.id).with_for_update(**ROW_LOCK, of=User)
    return [user for (user,) in execute_in_chunks(session, query, User.id, user_ids)]


def replace_for_users(session: Session, rows: Sequence[dict[str, object]]) -> None:
    """Insert invitations; earlier ones of the same users become void."""
    delete_for_users(session, [row["user_id"] for row in rows])
    session.execute(insert(Invitation), rows)


def delete_for_users(session: Session, user_ids: Sequence[int]) -> int:
    """Delete the invitations of these users; return how many there were."""
    statement = delete(Invitation).returning(Invitation.user_id).execution_options(synchronize_session=False)
    return len(list(execute_in_chunks(session, statement, Invitation.user_id, user_ids)))


def _select_uninvited(column: object) -> Select:
    query = select(column).select_from(User).outerjoin(Invitation, Invitation.user_id == User.id)
    return query.where(_is_invitable, Invitation.user_id.is_(None))


def replace_setup_code(session: Session, code_hash: str, *, at: datetime) -> None:
    delete_setup_code(session)
    session.add(SetupCode(id=1, code_hash=code_hash, created_at=at))


def delete_setup_code(session: Session) -> None:
    session.execute(delete(SetupCode))


def consume_setup_code(session: Session, code_hash: str) -> bool:
    """Consume the code; False when it is another one or was used concurrently."""
    return session.execute(delete(SetupCode).where(SetupCode.code_hash == code_hash)).rowcount == 1
