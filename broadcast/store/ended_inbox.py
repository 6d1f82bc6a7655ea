"""The view "Ended" of a user's inbox: received broadcasts that have ended, newest first, to be read again.

It shows what this user has a receipt for and is still in the audience of: a user who joined later never received it,
and one who lost the role may no longer see it. Recalled broadcasts are not shown. It ignores archiving and snoozing.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Select, and_, bindparam, func, or_, select

from broadcast.domain.audience import Viewer
from broadcast.domain.card import Card
from broadcast.domain.lifecycle import Status
from broadcast.store import audiences, search
from broadcast.store.database import db
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.fast.card_cache import CARD_CACHE, CardKey
from broadcast.store.inbox import InboxFilters, InboxItem
from broadcast.store.models import Broadcast, Receipt, User
from broadcast.store.types import UtcDateTime

MAX_COUNTED = 99  # more are "99+": counting all that ever ended would take longer every year


def list_page(
    viewer: Viewer, filters: InboxFilters, *, now: datetime, before: int | None = None, limit: int = 30
) -> list[InboxItem]:
    """At most `limit` messages with seq < `before` (None: from the newest)."""
    query = _apply_filters(_item_query, filters).order_by(Broadcast.seq.desc()).limit(limit)
    return _load_items(query if before is None else query.where(Broadcast.seq < before), viewer, now)


def list_by_ids(viewer: Viewer, filters: InboxFilters, ids: Sequence[int], *, now: datetime) -> list[InboxItem]:
    """Those of `ids` that match the filters, newest first."""
    query = _apply_filters(_item_query, filters).where(Broadcast.id.in_(ids)).order_by(Broadcast.seq.desc())
    return _load_items(query, viewer, now)


def find(viewer: Viewer, broadcast_id: int, *, now: datetime) -> InboxItem | None:
    """The message if it has ended and this user may still see it, else None."""
    return next(iter(list_by_ids(viewer, InboxFilters("ended"), [broadcast_id], now=now)), None)


def count(viewer: Viewer, *, now: datetime) -> int:
    """How many there are; MAX_COUNTED + 1 stands for more."""
    return db.session.scalar(_count_query, _build_parameters(viewer, now))


def list_categories(viewer: Viewer, *, now: datetime) -> list[str]:
    """Categories that occur among them, by name."""
    return list(db.session.scalars(_categories_query, _build_parameters(viewer, now), execution_options=RUN_IN_THREAD))


def _load_items(query: Select, viewer: Viewer, now: datetime) -> list[InboxItem]:
    parameters = _build_parameters(viewer, now)

    def load_cards(ids: list[int]) -> Iterator[tuple[CardKey, Card]]:
        for broadcast in db.session.scalars(_broadcast_query.where(Broadcast.id.in_(ids)), parameters):
            yield CardKey(broadcast.id, broadcast.revision, broadcast.updated_at), broadcast.to_card()

    # in a thread: SQLite sorts everything this user ever received to find the newest
    result = db.session.execute(query, parameters, execution_options=RUN_IN_THREAD)
    rows = [(CardKey(*row[:_CARD_KEY_COLUMN_COUNT]), row[_CARD_KEY_COLUMN_COUNT:]) for row in result]
    cards = CARD_CACHE.current.get_many([key for key, _ in rows], load_cards)
    return [
        InboxItem(cards[key.id], *state, acked_revision=acked_revision, ended_at=ended_at)
        for key, (*state, acked_revision, ended_at) in rows
        if key.id in cards
    ]


def _build_parameters(viewer: Viewer, now: datetime) -> dict[str, Any]:
    return {"viewer_id": viewer.user_id, "viewer_roles": sorted(viewer.roles), "now": now}


def _select_visible(*columns: Any) -> Select:
    """Also what is past its end before the scheduler has run: no other view shows it any more."""
    viewer_id, now = bindparam("viewer_id", type_=BigInteger), bindparam("now", type_=UtcDateTime)
    is_ended = or_(
        Broadcast.status == Status.EXPIRED, and_(Broadcast.status == Status.ACTIVE, Broadcast.expires_at <= now)
    )
    return (
        select(*columns)
        .select_from(Broadcast)
        .join(User, User.id == viewer_id)
        .join(Receipt, and_(Receipt.broadcast_id == Broadcast.id, Receipt.user_id == viewer_id))
        .where(is_ended, Broadcast.seq.is_not(None))
        .where(audiences.includes_viewer(viewer_id, bindparam("viewer_roles", expanding=True)))
    )


def _apply_filters(query: Select, filters: InboxFilters) -> Select:
    if filters.category:
        query = query.where(Broadcast.category == filters.category)
    if filters.priority:
        query = query.where(Broadcast.priority == filters.priority)
    return query.where(search.matches(filters.q)) if filters.q else query


_CARD_KEY_COLUMN_COUNT = len(CardKey._fields)
_item_query = _select_visible(
    Broadcast.id,
    Broadcast.revision,
    Broadcast.updated_at,
    Broadcast.seq,
    or_(Receipt.read_at.is_not(None), Broadcast.seq <= User.read_through_seq),
    Receipt.read_at,
    Receipt.unread_at,
    Receipt.acked_at,
    Receipt.archived_at,
    Receipt.acked_revision,
    func.coalesce(Broadcast.ended_at, Broadcast.expires_at),
)
_broadcast_query = _select_visible(Broadcast)
_count_query = select(func.count()).select_from(_select_visible(Broadcast.id).limit(MAX_COUNTED + 1).subquery())
_categories_query = (
    _select_visible(Broadcast.category).where(Broadcast.category.is_not(None)).distinct().order_by(Broadcast.category)
)
