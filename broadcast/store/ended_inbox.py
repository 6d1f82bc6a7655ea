"""The view "Ended" of a user's inbox: received broadcasts that have ended, newest first, to be read again.

It shows what this user has a receipt for and is still in the audience of: a user who joined later never received it,
and one who lost the role may no longer see it. Recalled broadcasts are not shown. It ignores archiving and snoozing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, false, func, null, or_, select

from broadcast.domain.audience import Viewer
from broadcast.domain.lifecycle import Status
from broadcast.store.database import db
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.fast.prepared_query import PreparedQuery
from broadcast.store.inbox import (
    NOW,
    InboxFilters,
    InboxItem,
    apply_field_filters,
    build_parameters,
    load_items,
    select_included,
)
from broadcast.store.models import Broadcast, Receipt, User

MAX_COUNTED = 99  # more are "99+": counting all that ever ended would take longer every year


def list_page(
    viewer: Viewer, filters: InboxFilters, *, now: datetime, before: int | None = None, limit: int = 30
) -> list[InboxItem]:
    """At most `limit` messages with seq < `before` (None: from the newest)."""
    query = apply_field_filters(_item_query, filters).order_by(Broadcast.seq.desc()).limit(limit)
    return _load(query if before is None else query.where(Broadcast.seq < before), viewer, now)


def list_by_ids(viewer: Viewer, filters: InboxFilters, ids: Sequence[int], *, now: datetime) -> list[InboxItem]:
    """Those of `ids` that match the filters, newest first."""
    query = apply_field_filters(_item_query, filters).where(Broadcast.id.in_(ids)).order_by(Broadcast.seq.desc())
    return _load(query, viewer, now)


def find(viewer: Viewer, broadcast_id: int, *, now: datetime) -> InboxItem | None:
    """The message if it has ended and this user may still see it, else None."""
    return next(iter(list_by_ids(viewer, InboxFilters("ended"), [broadcast_id], now=now)), None)


def count(viewer: Viewer, *, now: datetime) -> int:
    """How many there are; MAX_COUNTED + 1 stands for more."""
    return _count_query.fetch_first(build_parameters(viewer, now))[0]


def list_categories(viewer: Viewer, *, now: datetime) -> list[str]:
    """Categories that occur among them, by name."""
    return list(db.session.scalars(_categories_query, build_parameters(viewer, now), execution_options=RUN_IN_THREAD))


def _load(query: Select, viewer: Viewer, now: datetime) -> list[InboxItem]:
    """In a thread: SQLite sorts everything this user ever received to find the newest."""
    return load_items(query, viewer, now, broadcast_query=_broadcast_query, execution_options=RUN_IN_THREAD)


def _select_visible(*columns: Any) -> Select:
    """Also what is past its end before the scheduler has run: no other view shows it any more."""
    is_past_end = and_(Broadcast.status == Status.ACTIVE, Broadcast.expires_at <= NOW)
    is_ended = or_(Broadcast.status == Status.EXPIRED, is_past_end)
    return select_included(columns, is_ended, Broadcast.seq.is_not(None), requires_receipt=True)


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
    null(),
    false(),
    Receipt.acked_revision,
    func.coalesce(Broadcast.ended_at, Broadcast.expires_at),
)
_broadcast_query = _select_visible(Broadcast)
_count_query = PreparedQuery(
    select(func.count()).select_from(_select_visible(Broadcast.id).limit(MAX_COUNTED + 1).subquery())
)
_categories_query = (
    _select_visible(Broadcast.category).where(Broadcast.category.is_not(None)).distinct().order_by(Broadcast.category)
)
