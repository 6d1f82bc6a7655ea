"""Where a broadcast went: its deliveries with what their people did, page by page.

The order is that of the index of deliveries (revision, user), so that a page costs the same for any audience.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Select, and_, func, select, tuple_

from broadcast.store import receipt_steps
from broadcast.store.database import db
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.models import Broadcast, Delivery, Receipt, User

STATES = ("SENT", "WAITING", "FAILED", "CANCELLED")


class Position(NamedTuple):
    """The last row of a page."""

    revision: int
    user_id: int
    delivery_id: int


class DeliveryFilters(NamedTuple):
    """Empty strings mean "any"."""

    channel: str = ""
    state: str = ""


class ListedDelivery(NamedTuple):
    """One delivery. `at` is when it was sent, failed or was cancelled, or when it is due; `reason` says why."""

    id: int
    user_id: int
    username: str
    name: str
    channel: str
    revision: int
    state: str
    at: datetime
    reason: str | None
    attempts: int
    seen_at: datetime | None
    read_at: datetime | None
    acknowledged_at: datetime | None

    @property
    def position(self) -> Position:
        return Position(self.revision, self.user_id, self.id)


def list_deliveries(
    broadcast: Broadcast, filters: DeliveryFilters, *, after: Position | None, limit: int
) -> list[ListedDelivery]:
    query = (
        select(
            Delivery.id,
            User.id,
            User.username,
            User.name,
            Delivery.channel,
            Delivery.revision,
            Delivery.state,
            func.coalesce(Delivery.ended_at, Delivery.due_at, type_=Delivery.due_at.type),
            Delivery.reason,
            Delivery.attempts,
            receipt_steps.seen_at_column(broadcast),
            receipt_steps.read_at_column(broadcast),
            receipt_steps.acknowledged_at_column(broadcast),
        )
        .select_from(Delivery)
        .join(User, User.id == Delivery.user_id)
        .outerjoin(Receipt, and_(Receipt.broadcast_id == Delivery.broadcast_id, Receipt.user_id == Delivery.user_id))
        .where(Delivery.broadcast_id == broadcast.id)
        .order_by(Delivery.revision, Delivery.user_id, Delivery.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(Delivery.revision, Delivery.user_id, Delivery.id) > tuple(after))
    return [ListedDelivery(*row) for row in _execute(_filter(query, filters))]


def count_by_channel(broadcast_id: int) -> dict[str, dict[str, int]]:
    """How many deliveries there are by channel and state, the channels by name."""
    query = (
        select(Delivery.channel, Delivery.state, func.count())
        .where(Delivery.broadcast_id == broadcast_id)
        .group_by(Delivery.channel, Delivery.state)
        .order_by(Delivery.channel)
    )
    counts: dict[str, dict[str, int]] = {}
    for channel, state, count in _execute(query):
        counts.setdefault(channel, {})[state] = count
    return counts


def _filter(query: Select, filters: DeliveryFilters) -> Select:
    if filters.channel:
        query = query.where(Delivery.channel == filters.channel)
    return query.where(Delivery.state == filters.state) if filters.state else query


def _execute(query: Select) -> Sequence:
    return db.session.connection().execute(query, execution_options=RUN_IN_THREAD).all()
