"""The totals of broadcasts (`domain.figures.Totals`), counted by the database for many of them together."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select

from broadcast.domain.stats import Steps, Totals
from broadcast.store import audiences, past_viewers, receipt_steps
from broadcast.store.database import db
from broadcast.store.fast.count_cache import COUNT_CACHE
from broadcast.store.models import Broadcast, PastViewer, Receipt, User, UserRole

_Counts = dict[int, tuple[int, ...]]


def totals(rows: Sequence[Broadcast]) -> dict[int, Totals]:
    """Count distinct people at every step of each broadcast, by its id.

    All together; what very many people did is then kept for some seconds.
    """
    by_key = {("totals", row.id): row for row in rows}
    counted = COUNT_CACHE.current
    found = counted.get_many(
        list(by_key),
        lambda keys: _count({key: by_key[key] for key in keys}),
        weigh=lambda totals: totals.targeted.delivered,
    )
    return {row.id: found[key] for key, row in by_key.items()}


def of_new(row: Broadcast) -> Totals:
    """The totals of a broadcast that was stored a moment ago: nobody has received it."""
    if row.seq is None:
        return Totals(Steps(), Steps(), row.requires_ack, None, row.audience_count or 0)
    return Totals(Steps(row.audience_count or 0), Steps(), row.requires_ack, row.audience_count, None)


def was_here_in_time(broadcast: Broadcast) -> ColumnElement[bool]:
    """Of a User in the audience now: whether they came before it ended, as far as their present roles tell it."""
    if broadcast.ended_at is None:
        return User.id.is_not(None)
    since = User.viewer_since
    return or_(since.is_(None), since <= broadcast.ended_at, User.viewer_since_seq < broadcast.seq)


def _count(wanted: Mapping[Any, Broadcast]) -> dict[Any, Totals]:
    sent, members = [row for row in wanted.values() if row.seq is not None], audiences.count_of(wanted.values())
    if not sent:
        return {key: _unsent(row, members) for key, row in wanted.items()}
    reached, gone, unreached, late = _reached(sent), _gone(sent), _gone_unreached(sent), _too_late(sent)
    found = {}
    for key, row in wanted.items():
        if row.seq is None:
            found[key] = _unsent(row, members)
            continue
        left = gone.get(row.id, (0,) * 4)
        gone_people = left[0] + unreached.get(row.id, 0)
        here = members[row.id] - late.get(row.id, 0)
        whole = Steps(here + gone_people, *reached.get(row.id, (0,) * 4))
        found[key] = Totals(whole, Steps(gone_people, *left), row.requires_ack, row.audience_count, None)
    return found


def _unsent(row: Broadcast, members: Mapping[int, int]) -> Totals:
    """Whom it would reach now: people come and go after it was planned."""
    return Totals(Steps(), Steps(), row.requires_ack, None, members[row.id])


def _reached(rows: Sequence[Broadcast]) -> _Counts:
    """Delivered, seen, read and acknowledged of each."""
    seen, read = receipt_steps.seen_without_user(), receipt_steps.opened_at(Broadcast).is_not(None)
    sent = Receipt.broadcast_id.in_([row.id for row in rows])
    counts = [
        func.count(),
        *(func.count().filter(step) for step in (seen, read, receipt_steps.is_acknowledged(Broadcast))),
    ]
    own = select(Receipt.broadcast_id, *counts).join(Broadcast, Broadcast.id == Receipt.broadcast_id).where(sent)
    # who marked everything read; apart, because joining a million people for the few who did costs most of the time. The
    # smallest seq is there once more as a number, from which the database can tell how few they are
    through = (
        select(Receipt.broadcast_id, func.count(), func.count().filter(~seen))
        .join(Broadcast, Broadcast.id == Receipt.broadcast_id)
        .join(User, User.id == Receipt.user_id)
        .where(sent, ~read, User.read_through_seq >= Broadcast.seq)
        .where(or_(Broadcast.renewed_at.is_(None), User.read_through_at >= Broadcast.renewed_at))
        .where(User.read_through_seq >= min(row.seq for row in rows))
    )
    also = _by_broadcast(through)
    found = {}
    for broadcast_id, (delivered, seen_by, read_by, acknowledged) in _by_broadcast(own).items():
        also_read, also_seen = also.get(broadcast_id, (0, 0))
        found[broadcast_id] = (delivered, seen_by + also_seen, read_by + also_read, acknowledged)
    return found


def _gone(rows: Sequence[Broadcast]) -> _Counts:
    """The same of those who are no longer here, but whom it reached."""
    seen, read = receipt_steps.seen_at(Broadcast).is_not(None), receipt_steps.read_at(Broadcast).is_not(None)
    counts = [
        func.count(),
        *(func.count().filter(step) for step in (seen, read, receipt_steps.is_acknowledged(Broadcast))),
    ]
    base = (
        select(Receipt.broadcast_id, *counts)
        .join(Broadcast, Broadcast.id == Receipt.broadcast_id)
        .join(User, User.id == Receipt.user_id)
    )
    of_all = Receipt.broadcast_id.in_([row.id for row in rows])
    found = _by_broadcast(base.where(of_all, Receipt.user_id.in_(audiences.disabled_ids())))
    # nobody can leave an audience of everybody but by a closed account: most receipts need not be looked at
    narrow = [row.id for row in rows if row.audience_kind != "everyone" or row.has_exceptions]
    if not narrow:
        return found
    outside = base.where(Receipt.broadcast_id.in_(narrow), User.disabled_at.is_(None), ~_is_member())
    for broadcast_id, more in _by_broadcast(outside).items():
        found[broadcast_id] = tuple(map(sum, zip(found.get(broadcast_id, (0,) * 4), more, strict=True)))
    return found


def _gone_unreached(rows: Sequence[Broadcast]) -> dict[int, int]:
    """How many left before it reached them."""
    query = (
        select(Broadcast.id, func.count(PastViewer.user_id.distinct()))
        .join(PastViewer, and_(*past_viewers.was_in()))
        .join(User, User.id == PastViewer.user_id)
        .where(Broadcast.id.in_([row.id for row in rows]), ~_has_receipt())
        .where(or_(User.disabled_at.is_not(None), ~_is_member()))
    )
    return {broadcast_id: count for broadcast_id, (count,) in _by_broadcast(query, Broadcast.id).items()}


def _too_late(rows: Sequence[Broadcast]) -> dict[int, int]:
    """How many are in the audience now, but came when it was over: it was never for them."""
    ended = [row.id for row in rows if row.ended_at is not None]
    if not ended:
        return {}
    came_late = and_(User.viewer_since > Broadcast.ended_at, User.viewer_since_seq >= Broadcast.seq)
    query = (
        select(Broadcast.id, func.count())
        .join(User, came_late)
        .where(Broadcast.id.in_(ended), User.disabled_at.is_(None), _is_member())
        .where(~_has_receipt(), ~past_viewers.were_in(User.id))
    )
    return {broadcast_id: count for broadcast_id, (count,) in _by_broadcast(query, Broadcast.id).items()}


def _is_member() -> ColumnElement[bool]:
    return audiences.includes_person(User.id, UserRole, lambda role: role.user_id == User.id)


def _has_receipt() -> ColumnElement[bool]:
    return select(Receipt.user_id).where(Receipt.broadcast_id == Broadcast.id, Receipt.user_id == User.id).exists()


def _by_broadcast(query: Select, column: Any = Receipt.broadcast_id) -> _Counts:
    return {broadcast_id: tuple(counts) for broadcast_id, *counts in db.session.execute(query.group_by(column))}
