"""Queries on invitations: links with which users choose a first password."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Select, and_, delete, func, insert, select
from sqlalchemy.orm import Session

from broadcast.base.cooperative import split_into_chunks
from broadcast.store.database import MAX_IN_VALUES, db
from broadcast.store.models import Invitation, User


class OpenInvitation(NamedTuple):
    """An invitation that is neither used nor revoked, with its user. It may have expired."""

    invitation: Invitation
    user: User


def get_by_token_hash(token_hash: str) -> OpenInvitation | None:
    query = select(Invitation, User).join(User, User.id == Invitation.user_id)
    row = db.session.execute(query.where(Invitation.token_hash == token_hash)).one_or_none()
    return row and OpenInvitation(*row)


def get_for_user(user_id: int) -> Invitation | None:
    return db.session.get(Invitation, user_id)


def list_page(*, after: int = 0, limit: int) -> list[OpenInvitation]:
    """One page of open invitations, by user id."""
    query = select(Invitation, User).join(User, User.id == Invitation.user_id).where(Invitation.user_id > after)
    return [OpenInvitation(*row) for row in db.session.execute(query.order_by(Invitation.user_id).limit(limit))]


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
    users: list[User] = []
    for chunk in split_into_chunks(user_ids, MAX_IN_VALUES):
        query = select(User).where(User.id.in_(chunk), _is_invitable())
        users += session.scalars(query.order_by(User.id).with_for_update(key_share=True, of=User))
    return users


def replace_for_users(session: Session, rows: Sequence[dict[str, object]]) -> None:
    """Insert invitations; earlier ones of the same users become void."""
    delete_for_users(session, [row["user_id"] for row in rows])
    session.execute(insert(Invitation), rows)


def delete_for_users(session: Session, user_ids: Sequence[int]) -> int:
    """Delete the invitations of these users; return how many there were."""
    deleted_count = 0
    for chunk in split_into_chunks(user_ids, MAX_IN_VALUES):
        statement = delete(Invitation).where(Invitation.user_id.in_(chunk))
        deleted_count += session.execute(statement.execution_options(synchronize_session=False)).rowcount
    return deleted_count


def _select_uninvited(column: object) -> Select:
    has_no_invitation = Invitation.user_id.is_(None)
    query = select(column).select_from(User).outerjoin(Invitation, Invitation.user_id == User.id)
    return query.where(_is_invitable(), has_no_invitation)


def _is_invitable() -> object:
    return and_(User.password_hash.is_(None), User.disabled_at.is_(None))
