"""The totals of broadcasts (`domain.stats.BroadcastTotals`), counted by the database for many at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from broadcast.domain.stats import BroadcastTotals, FunnelCounts
from broadcast.store import audiences, past_viewers, receipt_steps
from broadcast.store.database import db
from broadcast.store.fast.count_cache import COUNT_CACHE
from broadcast.store.models import Broadcast, PastViewer, Receipt, User, UserRole

_CountsByBroadcast = dict[int, tuple[int, ...]]


def count_totals(rows: Sequence[Broadcast]) -> dict[int, BroadcastTotals]:
    """Count distinct users at every step of each broadcast, by its id.

    One set of queries counts all of them; large counts are then cached for some seconds.
    """
    by_key = {("totals", row.id): row for row in rows}
    count_cache = COUNT_CACHE.current
    totals_by_key = count_cache.get_many(
        list(by_key),
        lambda keys: _count_uncached({key: by_key[key] for key in keys}),
        weigh=lambda totals: totals.targeted.delivered,
    )
    return {row.id: totals_by_key[key] for key, row in by_key.items()}


def build_unsent_totals(row: Broadcast) -> BroadcastTotals:
    """The totals of a broadcast stored a moment ago: nobody has received it."""
    if row.seq is None:
        return BroadcastTotals(FunnelCounts(), FunnelCounts(), row.requires_ack, None, row.audience_count or 0)
    return BroadcastTotals(
        FunnelCounts(row.audience_count or 0), FunnelCounts(), row.requires_ack, row.audience_count, None
    )


def joined_before_end(broadcast: Broadcast) -> ColumnElement[bool]:
    """The condition that a current member joined before the end, as far as their present roles tell."""
    if broadcast.ended_at is None:
        return User.id.is_not(None)
    joined_at = User.viewer_since
    return or_(joined_at.is_(None), joined_at <= broadcast.ended_at, User.viewer_since_seq < broadcast.seq)


def _count_uncached(rows_by_key: Mapping[Any, Broadcast]) -> dict[Any, BroadcastTotals]:
    sent_rows, member_counts = (
        [row for row in rows_by_key.values() if row.seq is not None],
        audiences.count_by_broadcast(rows_by_key.values()),
    )
    if not sent_rows:
        return {key: _build_unsent_totals(row, member_counts) for key, row in rows_by_key.items()}
    reached, departed, departed_unreached, late = (
        _count_reached(sent_rows),
        _count_departed(sent_rows),
        _count_departed_unreached(sent_rows),
        _count_late_joiners(sent_rows),
    )
    totals_by_key = {}
    for key, row in rows_by_key.items():
        if row.seq is None:
            totals_by_key[key] = _build_unsent_totals(row, member_counts)
            continue
        departed_counts = departed.get(row.id, (0,) * 4)
        departed_count = departed_counts[0] + departed_unreached.get(row.id, 0)
        present_count = member_counts[row.id] - late.get(row.id, 0)
        targeted_steps = FunnelCounts(present_count + departed_count, *reached.get(row.id, (0,) * 4))
        totals_by_key[key] = BroadcastTotals(
            targeted_steps, FunnelCounts(departed_count, *departed_counts), row.requires_ack, row.audience_count, None
        )
    return totals_by_key


def _build_unsent_totals(row: Broadcast, member_counts: Mapping[int, int]) -> BroadcastTotals:
    """The users it would reach now: membership changes after it was scheduled."""
    return BroadcastTotals(FunnelCounts(), FunnelCounts(), row.requires_ack, None, member_counts[row.id])


def _count_reached(rows: Sequence[Broadcast]) -> _CountsByBroadcast:
    """Delivered, seen, read and acknowledged counts of each."""
    is_seen, is_read = receipt_steps.is_seen_condition(), receipt_steps.opened_at_column(Broadcast).is_not(None)
    is_of_sent = Receipt.broadcast_id.in_([row.id for row in rows])
    counts = [
        func.count(),
        *(func.count().filter(step) for step in (is_seen, is_read, receipt_steps.is_acknowledged_condition(Broadcast))),
    ]
    receipt_query = (
        select(Receipt.broadcast_id, *counts).join(Broadcast, Broadcast.id == Receipt.broadcast_id).where(is_of_sent)
    )
    # Users who marked everything read. A separate query, because joining a million users for those few costs most of
    # the time. The smallest seq is repeated as a literal, from which the database can estimate how few they are.
    marked_read_query = (
        select(Receipt.broadcast_id, func.count(), func.count().filter(~is_seen))
        .join(Broadcast, Broadcast.id == Receipt.broadcast_id)
        .join(User, User.id == Receipt.user_id)
        .where(is_of_sent, ~is_read, User.read_through_seq >= Broadcast.seq)
        .where(or_(Broadcast.renewed_at.is_(None), User.read_through_at >= Broadcast.renewed_at))
        .where(User.read_through_seq >= min(row.seq for row in rows))
    )
    marked_read_counts = _count_by_broadcast(marked_read_query)
    counts_by_broadcast = {}
    for broadcast_id, (delivered, seen_by, read_by, acknowledged) in _count_by_broadcast(receipt_query).items():
        also_read, also_seen = marked_read_counts.get(broadcast_id, (0, 0))
        counts_by_broadcast[broadcast_id] = (delivered, seen_by + also_seen, read_by + also_read, acknowledged)
    return counts_by_broadcast


def _count_departed(rows: Sequence[Broadcast]) -> _CountsByBroadcast:
    """The same counts for users who have left, but whom it reached."""
    is_seen, is_read = (
        receipt_steps.seen_at_column(Broadcast).is_not(None),
        receipt_steps.read_at_column(Broadcast).is_not(None),
    )
    counts = [
        func.count(),
        *(func.count().filter(step) for step in (is_seen, is_read, receipt_steps.is_acknowledged_condition(Broadcast))),
    ]
    base_query = (
        select(Receipt.broadcast_id, *counts)
        .join(Broadcast, Broadcast.id == Receipt.broadcast_id)
        .join(User, User.id == Receipt.user_id)
    )
    is_of_rows = Receipt.broadcast_id.in_([row.id for row in rows])
    counts_by_broadcast = _count_by_broadcast(
        base_query.where(is_of_rows, Receipt.user_id.in_(audiences.select_disabled_ids()))
    )
    # an audience of everyone can be left only by disabling the account, so most receipts need not be read
    restricted_ids = [row.id for row in rows if row.audience_kind != "everyone" or row.has_exceptions]
    if not restricted_ids:
        return counts_by_broadcast
    former_member_query = base_query.where(
        Receipt.broadcast_id.in_(restricted_ids), User.disabled_at.is_(None), ~_is_member()
    )
    for broadcast_id, extra_counts in _count_by_broadcast(former_member_query).items():
        counts_by_broadcast[broadcast_id] = tuple(
            map(sum, zip(counts_by_broadcast.get(broadcast_id, (0,) * 4), extra_counts, strict=True))
        )
    return counts_by_broadcast


def _count_departed_unreached(rows: Sequence[Broadcast]) -> dict[int, int]:
    """How many left before it reached them."""
    query = (
        select(Broadcast.id, func.count(PastViewer.user_id.distinct()))
        .join(PastViewer, and_(*past_viewers.build_overlap_conditions()))
        .join(User, User.id == PastViewer.user_id)
        .where(Broadcast.id.in_([row.id for row in rows]), ~_has_receipt())
        .where(or_(User.disabled_at.is_not(None), ~_is_member()))
    )
    return {broadcast_id: count for broadcast_id, (count,) in _count_by_broadcast(query, Broadcast.id).items()}


def _count_late_joiners(rows: Sequence[Broadcast]) -> dict[int, int]:
    """How many are in the audience now, but joined after the end: it was never for them."""
    ended_ids = [row.id for row in rows if row.ended_at is not None]
    if not ended_ids:
        return {}
    is_late_joiner = and_(User.viewer_since > Broadcast.ended_at, User.viewer_since_seq >= Broadcast.seq)
    query = (
        select(Broadcast.id, func.count())
        .join(User, is_late_joiner)
        .where(Broadcast.id.in_(ended_ids), User.disabled_at.is_(None), _is_member())
        .where(~_has_receipt(), ~past_viewers.was_in_audience(User.id))
    )
    return {broadcast_id: count for broadcast_id, (count,) in _count_by_broadcast(query, Broadcast.id).items()}


def _is_member() -> ColumnElement[bool]:
    return audiences.includes_user(User.id, UserRole, lambda role: role.user_id == User.id)


def _has_receipt() -> ColumnElement[bool]:
    return select(Receipt.user_id).where(Receipt.broadcast_id == Broadcast.id, Receipt.user_id == User.id).exists()


def _count_by_broadcast(query: Select, column: Any = Receipt.broadcast_id) -> _CountsByBroadcast:
    return {broadcast_id: tuple(counts) for broadcast_id, *counts in db.session.execute(query.group_by(column))}
