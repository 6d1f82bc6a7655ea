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
_NO_RECIPIENTS, _NO_STEPS = FunnelCounts(), (0, 0, 0, 0)


def count_totals(rows: Sequence[Broadcast]) -> dict[int, BroadcastTotals]:
    """Count distinct users at every step of each broadcast, by its id.

    One set of queries counts all of them; large counts are then cached for some seconds.
    """
    by_key = {("totals", row.id): row for row in rows}
    totals_by_key = COUNT_CACHE.current.get_many(
        list(by_key),
        lambda keys: _count_uncached({key: by_key[key] for key in keys}),
        weigh=lambda totals: totals.targeted.delivered,
    )
    return {row.id: totals_by_key[key] for key, row in by_key.items()}


def build_unsent_totals(row: Broadcast) -> BroadcastTotals:
    """The totals of a broadcast stored a moment ago: nobody has received it."""
    count = row.audience_count or 0
    return _build_totals(row, would_reach=count) if row.seq is None else _build_totals(row, FunnelCounts(count))


def joined_before_end(broadcast: Broadcast) -> ColumnElement[bool]:
    """The condition that a current member joined before the end, as far as their present roles tell."""
    if broadcast.ended_at is None:
        return User.id.is_not(None)
    joined_at = User.viewer_since
    return or_(joined_at.is_(None), joined_at <= broadcast.ended_at, User.viewer_since_seq < broadcast.seq)


def _build_totals(
    row: Broadcast,
    targeted: FunnelCounts = _NO_RECIPIENTS,
    gone: FunnelCounts = _NO_RECIPIENTS,
    *,
    would_reach: int | None = None,
) -> BroadcastTotals:
    sent_to = None if row.seq is None else row.audience_count
    return BroadcastTotals(targeted, gone, row.requires_ack, sent_to, would_reach)


def _count_uncached(rows_by_key: Mapping[Any, Broadcast]) -> dict[Any, BroadcastTotals]:
    sent_rows = [row for row in rows_by_key.values() if row.seq is not None]
    member_counts = audiences.count_by_broadcast(rows_by_key.values())
    reached, departed, departed_unreached, late = (
        count(sent_rows) if sent_rows else {}
        for count in (_count_reached, _count_departed, _count_departed_unreached, _count_late_joiners)
    )
    totals_by_key = {}
    for key, row in rows_by_key.items():
        if row.seq is None:  # the users it would reach now: membership changes after it was scheduled
            totals_by_key[key] = _build_totals(row, would_reach=member_counts[row.id])
            continue
        departed_counts = departed.get(row.id, _NO_STEPS)
        departed_count = departed_counts[0] + departed_unreached.get(row.id, 0)
        targeted_count = member_counts[row.id] - late.get(row.id, 0) + departed_count
        targeted = FunnelCounts(targeted_count, *reached.get(row.id, _NO_STEPS))
        totals_by_key[key] = _build_totals(row, targeted, FunnelCounts(departed_count, *departed_counts))
    return totals_by_key


def _count_reached(rows: Sequence[Broadcast]) -> _CountsByBroadcast:
    """Delivered, seen, read and acknowledged counts of each."""
    is_seen, is_read = receipt_steps.is_seen_condition(), receipt_steps.opened_at_column(Broadcast).is_not(None)
    is_of_sent = Receipt.broadcast_id.in_([row.id for row in rows])
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
    for broadcast_id, counts in _count_by_broadcast(_select_steps(is_seen, is_read).where(is_of_sent)).items():
        delivered, seen, read, acknowledged = counts
        also_read, also_seen = marked_read_counts.get(broadcast_id, (0, 0))
        counts_by_broadcast[broadcast_id] = (delivered, seen + also_seen, read + also_read, acknowledged)
    return counts_by_broadcast


def _count_departed(rows: Sequence[Broadcast]) -> _CountsByBroadcast:
    """The same counts for users who have left, but whom it reached."""
    is_seen, is_read = (
        column(Broadcast).is_not(None) for column in (receipt_steps.seen_at_column, receipt_steps.read_at_column)
    )
    query = _select_steps(is_seen, is_read).join(User, User.id == Receipt.user_id)
    is_disabled = Receipt.user_id.in_(audiences.select_disabled_ids())
    counts_by_broadcast = _count_by_broadcast(query.where(_is_of_rows(Receipt.broadcast_id, rows), is_disabled))
    # an audience of everyone can be left only by disabling the account, so most receipts need not be read
    restricted_rows = [row for row in rows if row.audience_kind != "everyone" or row.has_exceptions]
    if not restricted_rows:
        return counts_by_broadcast
    is_former_member = and_(User.disabled_at.is_(None), ~_is_member())
    former_query = query.where(_is_of_rows(Receipt.broadcast_id, restricted_rows), is_former_member)
    for broadcast_id, counts in _count_by_broadcast(former_query).items():
        disabled_counts = counts_by_broadcast.get(broadcast_id, _NO_STEPS)
        counts_by_broadcast[broadcast_id] = tuple(map(sum, zip(disabled_counts, counts, strict=True)))
    return counts_by_broadcast


def _count_departed_unreached(rows: Sequence[Broadcast]) -> dict[int, int]:
    """How many left before it reached them."""
    query = (
        select(Broadcast.id, func.count(PastViewer.user_id.distinct()))
        .join(PastViewer, and_(*past_viewers.build_overlap_conditions()))
        .join(User, User.id == PastViewer.user_id)
        .where(_is_of_rows(Broadcast.id, rows), ~_has_receipt(), or_(User.disabled_at.is_not(None), ~_is_member()))
    )
    return dict(map(tuple, db.session.execute(query.group_by(Broadcast.id))))


def _count_late_joiners(rows: Sequence[Broadcast]) -> dict[int, int]:
    """How many are in the audience now, but joined after the end: it was never for them."""
    ended_rows = [row for row in rows if row.ended_at is not None]
    if not ended_rows:
        return {}
    is_late_joiner = and_(User.viewer_since > Broadcast.ended_at, User.viewer_since_seq >= Broadcast.seq)
    query = (
        select(Broadcast.id, func.count())
        .join(User, is_late_joiner)
        .where(_is_of_rows(Broadcast.id, ended_rows), User.disabled_at.is_(None), _is_member())
        .where(~_has_receipt(), ~past_viewers.was_in_audience(User.id))
    )
    return dict(map(tuple, db.session.execute(query.group_by(Broadcast.id))))


def _is_of_rows(column: Any, rows: Sequence[Broadcast]) -> ColumnElement[bool]:
    return column.in_([row.id for row in rows])


def _is_member() -> ColumnElement[bool]:
    return audiences.includes_user(User.id, UserRole, lambda role: role.user_id == User.id)


def _has_receipt() -> ColumnElement[bool]:
    return select(Receipt.user_id).where(Receipt.broadcast_id == Broadcast.id, Receipt.user_id == User.id).exists()


def _select_steps(is_seen: ColumnElement[bool], is_read: ColumnElement[bool]) -> Select:
    steps = (is_seen, is_read, receipt_steps.is_acknowledged_condition(Broadcast))
    counts = (func.count(), *(func.count().filter(step) for step in steps))
    return select(Receipt.broadcast_id, *counts).join(Broadcast, Broadcast.id == Receipt.broadcast_id)


def _count_by_broadcast(query: Select) -> _CountsByBroadcast:
    rows = db.session.execute(query.group_by(Receipt.broadcast_id))
    return {broadcast_id: tuple(counts) for broadcast_id, *counts in rows}
