"""The browsers in which users have turned push messages on. Only those whose session is open are used or shown."""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from broadcast.domain.push_subscription import PushEndpoint
from broadcast.store.audiences import UserCondition
from broadcast.store.database import db, execute_in_chunks
from broadcast.store.models import PushSubscription, User, UserSession


class Browser(NamedTuple):
    """Where one browser of a user gets push messages. `id` is that of the subscription."""

    id: int
    user_id: int
    endpoint: PushEndpoint


def has_browser() -> UserCondition:
    """The condition that a User has a browser that gets push messages."""
    return _select_usable(PushSubscription.id).where(PushSubscription.user_id == User.id).exists()


def list_browsers(user_ids: Collection[int]) -> list[Browser]:
    """The browsers of these users that get push messages."""
    columns = (PushSubscription.endpoint, PushSubscription.p256dh, PushSubscription.auth)
    query = _select_usable(PushSubscription.id, PushSubscription.user_id, *columns)
    rows = execute_in_chunks(db.session(), query, PushSubscription.user_id, user_ids)
    return [Browser(id_, user_id, PushEndpoint(*endpoint)) for id_, user_id, *endpoint in rows]


def list_of_user(user_id: int) -> list[PushSubscription]:
    """The user's browsers that get push messages, the one that visited last first."""
    query = _select_usable(PushSubscription).where(PushSubscription.user_id == user_id)
    return list(db.session.scalars(query.order_by(PushSubscription.last_seen_at.desc(), PushSubscription.id)))


def count_other(session: Session, user_id: int, endpoint: str) -> int:
    """How many browsers of the user get push messages, besides that with this endpoint."""
    query = _select_usable(func.count()).where(PushSubscription.user_id == user_id)
    return session.scalar(query.where(PushSubscription.endpoint != endpoint))


def get_by_endpoint(session: Session, endpoint: str) -> PushSubscription | None:
    return session.scalar(select(PushSubscription).where(PushSubscription.endpoint == endpoint))


def delete_row(session: Session, subscription_id: int) -> None:
    session.execute(delete(PushSubscription.__table__).where(PushSubscription.id == subscription_id))


def _select_usable(*columns) -> Select:
    return (
        select(*columns)
        .select_from(PushSubscription)
        .join(UserSession, UserSession.id == PushSubscription.session_id)
        .where(UserSession.ended_at.is_(None))
    )
