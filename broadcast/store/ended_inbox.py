"""The view "Ended" of one person's inbox: what they received and whose time is over, newest first, to be read again.

In it is what has a receipt of this person and includes them still: who joined later never had it, and who has lost the role may
not see it any more. What was recalled was taken back, so it is not in it. Whether somebody archived or snoozed it does not
matter.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Select, and_, bindparam, func, or_, select

from broadcast.domain.audience import Viewer
from broadcast.domain.card import Card
from broadcast.domain.lifecycle import Status
from broadcast.store import audiences, search
from broadcast.store.database import IN_A_THREAD, Moment, db
from broadcast.store.fast.card_cache import CARD_CACHE, CardKey
from broadcast.store.inbox import Filters, Item
from broadcast.store.models import Broadcast, Receipt, User

MOST_COUNTED = 99  # any more are "99+": counting all that ever ended would take longer every year


def page(viewer: Viewer, filters: Filters, *, now: datetime, before: int | None = None, limit: int = 30) -> list[Item]:
    """At most `limit` messages with seq < `before` (None: from the newest)."""
    query = _filtered(_items, filters).order_by(Broadcast.seq.desc()).limit(limit)
    return _read(query if before is None else query.where(Broadcast.seq < before), viewer, now)


def some(viewer: Viewer, filters: Filters, ids: Sequence[int], *, now: datetime) -> list[Item]:
    """Those of `ids` that the filters show, newest first."""
    query = _filtered(_items, filters).where(Broadcast.id.in_(ids)).order_by(Broadcast.seq.desc())
    return _read(query, viewer, now)


def one(viewer: Viewer, broadcast_id: int, *, now: datetime) -> Item | None:
    """The message if it has ended and this person may still see it, else None."""
    return next(iter(some(viewer, Filters("ended"), [broadcast_id], now=now)), None)


def count(viewer: Viewer, *, now: datetime) -> int:
    """How many there are; MOST_COUNTED + 1 stands for more."""
    return db.session.scalar(_count, _given(viewer, now))


def categories(viewer: Viewer, *, now: datetime) -> list[str]:
    """Categories that occur among them, by name."""
    return list(db.session.scalars(_categories, _given(viewer, now), execution_options=IN_A_THREAD))


def _read(query: Select, viewer: Viewer, now: datetime) -> list[Item]:
    given = _given(viewer, now)

    def read(ids: list[int]) -> Iterator[tuple[CardKey, Card]]:
        for broadcast in db.session.scalars(_broadcasts.where(Broadcast.id.in_(ids)), given):
            yield CardKey(broadcast.id, broadcast.revision, broadcast.updated_at), broadcast.as_card()

    # in a thread: SQLite sorts all that this person ever received to find the newest
    found = db.session.execute(query, given, execution_options=IN_A_THREAD)
    rows = [(CardKey(*row[:_KEYED]), row[_KEYED:]) for row in found]
    cards = CARD_CACHE.current.of([key for key, _ in rows], read)
    return [
        Item(cards[key.id], *state, acked_revision=acked_revision, ended_at=ended_at)
        for key, (*state, acked_revision, ended_at) in rows
        if key.id in cards
    ]


def _given(viewer: Viewer, now: datetime) -> dict[str, Any]:
    return {"viewer_id": viewer.user_id, "viewer_roles": sorted(viewer.roles), "now": now}


def _base(*columns: Any) -> Select:
    """Also what is over by its time before the clock has run: it is in no other view any more."""
    viewer_id, now = bindparam("viewer_id", type_=BigInteger), bindparam("now", type_=Moment)
    is_over = or_(
        Broadcast.status == Status.EXPIRED, and_(Broadcast.status == Status.ACTIVE, Broadcast.expires_at <= now)
    )
    return (
        select(*columns)
        .select_from(Broadcast)
        .join(User, User.id == viewer_id)
        .join(Receipt, and_(Receipt.broadcast_id == Broadcast.id, Receipt.user_id == viewer_id))
        .where(is_over, Broadcast.seq.is_not(None))
        .where(audiences.includes_viewer(viewer_id, bindparam("viewer_roles", expanding=True)))
    )


def _filtered(query: Select, filters: Filters) -> Select:
    if filters.category:
        query = query.where(Broadcast.category == filters.category)
    if filters.priority:
        query = query.where(Broadcast.priority == filters.priority)
    return query.where(search.matches(filters.q)) if filters.q else query


_KEYED = len(CardKey._fields)
_items = _base(
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
_broadcasts = _base(Broadcast)
_count = select(func.count()).select_from(_base(Broadcast.id).limit(MOST_COUNTED + 1).subquery())
_categories = _base(Broadcast.category).where(Broadcast.category.is_not(None)).distinct().order_by(Broadcast.category)
