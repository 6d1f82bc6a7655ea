"""How one broadcast lands: how soon, with whom, and who is still missing. Distinct people everywhere.

"Mark all read" is one moment for many messages, so it counts as the moment at which somebody had read it at the latest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, case, func, or_, select

from broadcast.store import audiences, people
from broadcast.store.database import Moment, db
from broadcast.store.models import Broadcast, Receipt, User, UserRole

# Moments of the curve, as time after sending; evenly spaced on its axis, as most reading happens early
STEPS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 240, 720, 1440, 3 * 1440, 7 * 1440, 30 * 1440))
ROLES = 20  # of the largest roles in the table by role
STAGES = ("undelivered", "unseen", "unread", "unacknowledged")  # worst first
SORTS = {
    "user": User.id,
    "name": func.lower(User.name),
    "delivered": Receipt.delivered_at,
    "seen": Receipt.first_seen_at,
    "read": Receipt.read_at,
    "acknowledged": Receipt.acked_at,
}


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon it was read. Half of the readers had read it after `p50`, nine in ten after `p90`; None without readers.

    `delivered` and `read` count people at those of STEPS that have passed, and `now` at the end.
    """

    p50: timedelta | None
    p90: timedelta | None
    delivered: list[int]
    read: list[int]


@dataclass(frozen=True, slots=True)
class OfRole:
    name: str
    people: int
    delivered: int
    read: int
    acknowledged: int


@dataclass(frozen=True, slots=True)
class Missing:
    """Somebody who has not done yet what is asked, and how far they have come: one of STAGES."""

    user_id: int
    username: str
    name: str
    stage: str
    since: datetime | None


def pace(broadcast: Broadcast, *, now: datetime) -> Pace:
    """The curve and the percentiles of a broadcast that was sent."""
    passed = [step for step in STEPS if broadcast.published_at + step < now]
    moments = [broadcast.published_at + step for step in passed] + [now]
    read_at = _read_at(broadcast)
    reached = [func.count().filter(Receipt.delivered_at <= moment) for moment in moments]
    had_read = [func.count().filter(read_at <= moment) for moment in moments]
    counted = db.session.execute(_receipts(broadcast, *reached, *had_read)).one()
    delivered, read = list(counted[: len(moments)]), list(counted[len(moments) :])
    return Pace(_percentile(broadcast, read[-1], 0.5), _percentile(broadcast, read[-1], 0.9), delivered, read)


def by_role(broadcast: Broadcast) -> list[OfRole]:
    """The largest roles in the audience; somebody with two roles counts in both, whoever joined later counts too."""
    members = _members_by_role(broadcast)
    acked = Receipt.acked_at.is_not(None)
    steps = (or_(_read_at(broadcast).is_not(None), acked), acked)
    query = (
        _receipts(broadcast, UserRole.role_name, func.count(), *(func.count().filter(step) for step in steps))
        .join(UserRole, UserRole.user_id == User.id)
        .group_by(UserRole.role_name)
    )
    reached = {name: counts for name, *counts in db.session.execute(query)}
    found = [
        OfRole(name, max(members.get(name, 0), reached.get(name, (0,))[0]), *reached.get(name, (0, 0, 0)))
        for name in members.keys() | reached.keys()
    ]
    found.sort(key=lambda role: (-role.people, role.name))
    return [role for role in found if role.people][:ROLES]


def _members_by_role(broadcast: Broadcast) -> dict[str, int]:
    if broadcast.audience_kind == "everyone" and not broadcast.has_exceptions:
        return people.people_by_role()
    query = (
        select(UserRole.role_name, func.count())
        .join(User, User.id == UserRole.user_id)
        .where(audiences.members_of(broadcast, whole=True), User.disabled_at.is_(None))
        .group_by(UserRole.role_name)
    )
    if broadcast.audience_kind == "users":
        return dict(map(tuple, db.session.execute(query)))
    what = ("by role", audiences.of(broadcast))
    return audiences.until_people_change(what, lambda: dict(map(tuple, db.session.execute(query))))


def missing(broadcast: Broadcast, *, after: tuple[int, int] = (0, 0), limit: int) -> list[Missing]:
    """Who has not read it, or not acknowledged it where that is asked: worst first, then by user id.

    `after` is the number of the stage and the user id of the last one shown. Each stage is a walk along an index that ends
    with the page, so a million missing people cost no more than fifty; a million who got it must be walked past, though.
    """
    found: list[Missing] = []
    for number, stage in enumerate(_stages(broadcast)):
        if number < after[0]:
            continue
        query = _at_stage(broadcast, stage).order_by(User.id).limit(limit - len(found))
        if number == after[0]:
            query = query.where(User.id > after[1])
        found += [Missing(*row[:3], stage, row[3]) for row in db.session.execute(query)]
        if len(found) == limit:
            break
    return found


def missing_ids(broadcast: Broadcast, *, limit: int) -> list[int]:
    """The same people as ids, at most `limit`."""
    return [one.user_id for one in missing(broadcast, limit=limit)]


def missing_count(broadcast: Broadcast) -> int:
    """How many people are still missing: those in the audience now without those who have done it."""
    members = audiences.count(audiences.of(broadcast))
    done = _receipts(broadcast, func.count()).where(_member(broadcast), User.disabled_at.is_(None), _is_done(broadcast))
    return max(0, members - db.session.scalar(done))


def deliveries(
    broadcast: Broadcast, *, sort: str = "user", descending: bool = False, offset: int = 0, after: int = 0, limit: int
) -> Sequence[Row]:
    """People of the audience with their moments: everybody in it now, and everybody who got it.

    `sort` is a key of SORTS; people without the moment come last. `after` is a user id, for walking in the order of "user".
    """
    read_at = _read_at(broadcast)
    moments = (Receipt.delivered_at, Receipt.first_seen_at, read_at.label("read_at"), Receipt.acked_at)
    column = read_at if sort == "read" else SORTS[sort]
    order = column.desc() if descending else column.asc()
    query = (
        select(User.id, User.username, User.name, *moments)
        .outerjoin(Receipt, and_(Receipt.user_id == User.id, Receipt.broadcast_id == broadcast.id))
        .where(or_(and_(_member(broadcast), User.disabled_at.is_(None)), Receipt.user_id.is_not(None)))
        .order_by(order.nulls_last() if sort != "user" else order, User.id)
        .limit(limit)
        .offset(offset)
    )
    return db.session.execute(query.where(User.id > after) if after else query).all()


def _receipts(broadcast: Broadcast, *columns: Any) -> Select:
    return (
        select(*columns)
        .select_from(Receipt)
        .join(User, User.id == Receipt.user_id)
        .where(Receipt.broadcast_id == broadcast.id)
    )


def _read_at(broadcast: Broadcast) -> ColumnElement[datetime]:
    """When this person had read it, at the latest; needs Receipt and User in the query.

    What was read before a broadcast was shown again does not count.
    """
    opened, passed = Receipt.read_at, User.read_through_at
    through = User.read_through_seq >= broadcast.seq
    if broadcast.renewed_at:
        opened = case((opened >= broadcast.renewed_at, opened))
        through = and_(through, passed >= broadcast.renewed_at)
    return func.coalesce(opened, case((through, passed)), Receipt.acked_at, type_=Moment)


def _percentile(broadcast: Broadcast, readers: int, share: float) -> timedelta | None:
    if not readers:
        return None
    read_at = _read_at(broadcast)
    place = min(readers - 1, int(readers * share))
    query = _receipts(broadcast, read_at).where(read_at.is_not(None)).order_by(read_at).offset(place).limit(1)
    moment = db.session.scalar(query)
    return moment and max(timedelta(0), moment - broadcast.published_at)


def _member(broadcast: Broadcast) -> ColumnElement[bool]:
    return audiences.members_of(broadcast)


def _stages(broadcast: Broadcast) -> tuple[str, ...]:
    return STAGES if broadcast.requires_ack else STAGES[:3]


def _is_done(broadcast: Broadcast) -> ColumnElement[bool]:
    return Receipt.acked_at.is_not(None) if broadcast.requires_ack else _read_at(broadcast).is_not(None)


def _at_stage(broadcast: Broadcast, stage: str) -> Select:
    columns = (User.id, User.username, User.name)
    current = and_(_member(broadcast), User.disabled_at.is_(None))
    if stage == "undelivered":
        # in the order of the index and fenced off by OFFSET: PostgreSQL 15 walked five million receipts instead (22 s)
        reached = select(Receipt.user_id).where(Receipt.broadcast_id == broadcast.id).order_by(Receipt.user_id)
        reached = reached.offset(0).subquery()
        query = select(*columns, None).outerjoin(reached, reached.c.user_id == User.id)
        return query.where(current, reached.c.user_id.is_(None))
    seen, read_at = Receipt.first_seen_at, _read_at(broadcast)
    since, condition = {
        "unseen": (Receipt.delivered_at, and_(seen.is_(None), read_at.is_(None))),
        "unread": (seen, and_(seen.is_not(None), read_at.is_(None))),
        "unacknowledged": (read_at, and_(read_at.is_not(None), Receipt.acked_at.is_(None))),
    }[stage]
    return _receipts(broadcast, *columns, since).where(current, condition)
