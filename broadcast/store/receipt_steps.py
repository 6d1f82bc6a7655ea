"""`domain.stats` in SQL: how far one user got with one broadcast. Needs Receipt in the query, and User where noted.

`broadcast` is a stored broadcast, or the class Broadcast where the query has its rows.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_

from broadcast.store.models import Broadcast, Receipt, User
from broadcast.store.types import UtcDateTime

_BroadcastOrClass = Broadcast | type[Broadcast]


def is_acknowledged_condition(broadcast: _BroadcastOrClass) -> ColumnElement[bool]:
    """Whether an acknowledgement stands (`domain.revisions.is_acknowledgement_valid`)."""
    has_acknowledged = Receipt.acked_at.is_not(None)
    if broadcast is not Broadcast and broadcast.ack_revision == 1:
        return has_acknowledged
    return and_(has_acknowledged, func.coalesce(Receipt.acked_revision, 1) >= broadcast.ack_revision)


def acknowledged_at_column(broadcast: _BroadcastOrClass) -> ColumnElement[datetime]:
    return case((is_acknowledged_condition(broadcast), Receipt.acked_at))


def opened_at_column(broadcast: _BroadcastOrClass) -> ColumnElement[datetime]:
    """When this user read or acknowledged it individually; "mark all read" does not count."""
    read_since_renewal = _null_if_before(broadcast.renewed_at, Receipt.read_at)
    return func.coalesce(read_since_renewal, acknowledged_at_column(broadcast), type_=UtcDateTime)


def read_at_column(broadcast: _BroadcastOrClass) -> ColumnElement[datetime]:
    """When this user had read it, at the latest; needs User.

    "Mark all read" is one time for many messages. Readings before a broadcast was shown again do not count.
    """
    marked_read_at = _null_if_before(broadcast.renewed_at, User.read_through_at)
    passed_at = case((User.read_through_seq >= broadcast.seq, marked_read_at))
    read_since_renewal = _null_if_before(broadcast.renewed_at, Receipt.read_at)
    return func.coalesce(read_since_renewal, passed_at, acknowledged_at_column(broadcast), type_=UtcDateTime)


def seen_at_column(broadcast: _BroadcastOrClass) -> ColumnElement[datetime]:
    """When it was on this user's screen, at the latest; needs User. Showing it again does not reset it."""
    receipt_times = (Receipt.first_seen_at, Receipt.read_at, Receipt.acked_at)
    return func.coalesce(*receipt_times, read_at_column(broadcast), type_=UtcDateTime)


def delivered_at_column(broadcast: _BroadcastOrClass) -> ColumnElement[datetime]:
    """When it had reached this user, at the latest; needs User. A receipt implies delivery."""
    return func.coalesce(Receipt.delivered_at, seen_at_column(broadcast), type_=UtcDateTime)


def is_seen_condition() -> ColumnElement[bool]:
    """Whether it was seen, as far as receipts alone tell."""
    return or_(Receipt.first_seen_at.is_not(None), Receipt.read_at.is_not(None), Receipt.acked_at.is_not(None))


def _null_if_before(renewed_at: Any, moment: ColumnElement[datetime]) -> ColumnElement[datetime]:
    """`moment`, or NULL if it was before the broadcast was shown again."""
    if renewed_at is None:
        return moment
    if isinstance(renewed_at, datetime):
        return case((moment >= renewed_at, moment))
    return case((or_(renewed_at.is_(None), moment >= renewed_at), moment))
