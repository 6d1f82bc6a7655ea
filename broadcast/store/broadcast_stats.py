"""How one broadcast lands: how soon, with whom, who is still missing, and who is no longer here. Distinct people everywhere.

What each of these words means, `domain.figures` says; how many they are in all, `store.totals` counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, Select, and_, case, func, or_, select

from broadcast.domain.stats import Totals
from broadcast.store import audiences, past_viewers, receipt_steps, users
from broadcast.store.broadcast_totals import was_here_in_time
from broadcast.store.database import db
from broadcast.store.models import Broadcast, EarlierAcknowledgement, Receipt, RevisionText, User, UserRole

# Moments of the curve, as time after sending; evenly spaced on its axis, as most reading happens early
STEPS = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 240, 720, 1440, 3 * 1440, 7 * 1440, 30 * 1440))
ROLES = 20  # of the largest roles in the table by role
STAGES = ("undelivered", "unseen", "unread", "unacknowledged")  # worst first
SORTS = ("user", "name", "delivered", "seen", "read", "acknowledged")
NO_ROLE, NO_LONGER_HERE = "No role", "No longer here"  # no role can be called so


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
    """Those who are here and have this role now; NO_ROLE and NO_LONGER_HERE stand for the others."""

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


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """`revision` and `hash` are None where it is not known which text it is of."""

    at: datetime
    revision: int | None
    hash: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One of the targeted people, and when they had come how far. `earlier` are acknowledgements that no longer stand."""

    user_id: int
    username: str
    name: str
    is_here: bool
    is_disabled: bool
    delivered_at: datetime | None
    seen_at: datetime | None
    read_at: datetime | None
    acknowledged: Acknowledgement | None
    earlier: tuple[Acknowledgement, ...] = ()

    @property
    def acknowledged_at(self) -> datetime | None:
        return self.acknowledged and self.acknowledged.at


@dataclass(frozen=True, slots=True)
class OfRevision:
    """How many people acknowledged which text last, and whether that stands. `revision` is None where it is not known."""

    revision: int | None
    people: int
    stands: bool
    has_text: bool


def pace(broadcast: Broadcast, *, now: datetime) -> Pace:
    """The curve and the percentiles of a broadcast that was sent; the end of the curve is what the totals say."""
    moments = [broadcast.published_at + step for step in STEPS if broadcast.published_at + step < now]
    delivered_at, read_at = receipt_steps.delivered_at(broadcast), receipt_steps.read_at(broadcast)
    reached = [*(func.count().filter(delivered_at <= moment) for moment in moments), func.count()]
    had_read = [*(func.count().filter(read_at <= moment) for moment in moments), func.count(read_at)]
    counted = db.session.execute(_receipts(broadcast, *reached, *had_read)).one()
    delivered, read = list(counted[: len(reached)]), list(counted[len(reached) :])
    return Pace(_percentile(broadcast, read[-1], 0.5), _percentile(broadcast, read[-1], 0.9), delivered, read)


def by_role(broadcast: Broadcast, whole: Totals) -> list[OfRole]:
    """Who is here by the largest roles, who has none, and who is no longer here, as the totals `whole` have it.

    Somebody with two roles counts in both.
    """
    members, late = _members_by_role(broadcast), _late_by_role(broadcast)
    read, acknowledged = receipt_steps.read_at(broadcast), receipt_steps.acknowledged_at(broadcast)
    query = (
        _receipts(broadcast, UserRole.role_name, func.count(), func.count(read), func.count(acknowledged))
        .outerjoin(UserRole, UserRole.user_id == User.id)
        .where(_is_here(broadcast))
        .group_by(UserRole.role_name)
    )
    reached = {name: counts for name, *counts in db.session.execute(query)}
    found = [
        OfRole(name or NO_ROLE, members.get(name, 0) - late.get(name, 0), *reached.get(name, (0, 0, 0)))
        for name in members.keys() | reached.keys()
    ]
    found.sort(key=lambda role: (role.name == NO_ROLE, -role.people, role.name))
    without = [role for role in found if role.name == NO_ROLE and role.people]
    gone = whole.gone
    if gone.people:
        without.append(OfRole(NO_LONGER_HERE, gone.people, gone.delivered, gone.read, gone.acknowledged))
    return [role for role in found if role.people and role.name != NO_ROLE][:ROLES] + without


def by_revision(broadcast: Broadcast) -> list[OfRevision]:
    """Of which revisions the acknowledgements are, the newest first; where that is not known, last."""
    stands = receipt_steps.is_acknowledged(broadcast)
    query = (
        select(Receipt.acked_revision, func.count(), func.count().filter(stands), func.max(RevisionText.revision))
        .outerjoin(
            RevisionText,
            and_(RevisionText.broadcast_id == broadcast.id, RevisionText.revision == Receipt.acked_revision),
        )
        .where(Receipt.broadcast_id == broadcast.id, Receipt.acked_at.is_not(None))
        .group_by(Receipt.acked_revision)
    )
    found = [
        OfRevision(revision, n, bool(standing), bool(kept)) for revision, n, standing, kept in db.session.execute(query)
    ]
    return sorted(found, key=lambda one: -(one.revision or 0))


def _members_by_role(broadcast: Broadcast) -> dict[str | None, int]:
    """How many people of the audience now have each role; under None, how many have none."""
    members = and_(audiences.members_of(broadcast, whole=True), User.disabled_at.is_(None))
    if broadcast.audience_kind == "everyone" and not broadcast.has_exceptions:
        nobody = audiences.until_people_change("no role", lambda: _without_role(members))
        return users.people_by_role() | {None: nobody}

    def count() -> dict[str | None, int]:
        query = select(UserRole.role_name, func.count()).join(User, User.id == UserRole.user_id).where(members)
        found = dict(map(tuple, db.session.execute(query.group_by(UserRole.role_name))))
        return found if broadcast.audience_kind == "roles" else found | {None: _without_role(members)}

    if broadcast.audience_kind == "users":
        return count()
    return audiences.until_people_change(("by role", audiences.of(broadcast)), count)


def _without_role(members: ColumnElement[bool]) -> int:
    has_one = select(UserRole.user_id).where(UserRole.user_id == User.id).exists()
    return db.session.scalar(select(func.count(User.id)).where(members, ~has_one))


def _late_by_role(broadcast: Broadcast) -> dict[str | None, int]:
    """How many of these it was never for, as they came when it was over."""
    if broadcast.ended_at is None:
        return {}
    reached = select(Receipt.user_id).where(Receipt.broadcast_id == broadcast.id, Receipt.user_id == User.id).exists()
    query = (
        select(UserRole.role_name, func.count())
        .select_from(User)
        .outerjoin(UserRole, UserRole.user_id == User.id)
        .where(User.viewer_since > broadcast.ended_at, _is_here(broadcast), ~reached, ~_was_in_time(broadcast))
        .group_by(UserRole.role_name)
    )
    return dict(map(tuple, db.session.execute(query)))


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


def deliveries(
    broadcast: Broadcast,
    *,
    sort: str = "user",
    descending: bool = False,
    offset: int = 0,
    after: int = 0,
    limit: int,
    only: Literal["all", "done", "gone"] = "all",
) -> list[Delivery]:
    """The targeted people with their moments: each once, and no others, so that the rows add up to the totals.

    `sort` is one of SORTS; people without the moment come last. `after` is a user id, for walking in the order of "user".
    `only` leaves those who have done what is asked and are here, or those who are no longer here.
    """
    here = _is_here(broadcast)
    moments = _moments(broadcast)
    order = {"user": User.id, "name": func.lower(User.name)}.get(sort, moments.get(sort))
    order = order.desc() if descending else order.asc()
    person = (User.id, User.username, User.name, here, User.disabled_at.is_not(None))
    query = (
        select(*person, *moments.values(), Receipt.acked_at, Receipt.acked_revision, Receipt.acked_hash)
        .outerjoin(Receipt, and_(Receipt.user_id == User.id, Receipt.broadcast_id == broadcast.id))
        .where(_is_wanted(broadcast, only))
        .order_by(order.nulls_last() if sort in moments else order, User.id)
        .limit(limit)
        .offset(offset)
    )
    rows = db.session.execute(query.where(User.id > after) if after else query).all()
    return _with_earlier(broadcast, rows)


def _moments(broadcast: Broadcast) -> dict[str, ColumnElement[datetime]]:
    """Of somebody without a receipt none: it has not reached them, whatever they marked read."""
    found = {
        "delivered": receipt_steps.delivered_at(broadcast),
        "seen": receipt_steps.seen_at(broadcast),
        "read": receipt_steps.read_at(broadcast),
        "acknowledged": receipt_steps.acknowledged_at(broadcast),
    }
    has = Receipt.user_id.is_not(None)
    return {name: case((has, moment)).label(f"{name}_at") for name, moment in found.items()}


def _is_wanted(broadcast: Broadcast, only: str) -> ColumnElement[bool]:
    here, has = _is_here(broadcast), Receipt.user_id.is_not(None)
    if only == "done":
        return and_(here, has, _is_done(broadcast))
    were_in = User.id.in_(past_viewers.ids_of(broadcast))
    if only == "gone":
        return and_(or_(User.disabled_at.is_not(None), ~_member(broadcast)), or_(has, were_in))
    return or_(and_(here, was_here_in_time(broadcast)), has, were_in)


def _with_earlier(broadcast: Broadcast, rows: Sequence[Row]) -> list[Delivery]:
    """Rows with the acknowledgements that no longer stand, as some were asked again."""
    earlier: dict[int, list[Acknowledgement]] = {}
    if broadcast.ack_revision > 1:
        known = select(EarlierAcknowledgement).where(EarlierAcknowledgement.broadcast_id == broadcast.id)
        of_these = known.where(EarlierAcknowledgement.user_id.in_([row[0] for row in rows]))
        for one in db.session.scalars(of_these.order_by(EarlierAcknowledgement.at)):
            earlier.setdefault(one.user_id, []).append(Acknowledgement(one.at, one.revision or None, one.hash))
    found = []
    for *person, delivered_at, seen_at, read_at, standing_at, acked_at, revision, digest in rows:
        given = Acknowledgement(acked_at, revision, digest) if acked_at else None
        before = earlier.get(person[0], [])
        if given and not standing_at:
            before, given = [*before, given], None
        person[3:5] = map(bool, person[3:5])
        found.append(Delivery(*person, delivered_at, seen_at, read_at, given, tuple(before)))
    return found


def _receipts(broadcast: Broadcast, *columns: Any) -> Select:
    return (
        select(*columns)
        .select_from(Receipt)
        .join(User, User.id == Receipt.user_id)
        .where(Receipt.broadcast_id == broadcast.id)
    )


def _percentile(broadcast: Broadcast, readers: int, share: float) -> timedelta | None:
    if not readers:
        return None
    read_at = receipt_steps.read_at(broadcast)
    place = min(readers - 1, int(readers * share))
    query = _receipts(broadcast, read_at).where(read_at.is_not(None)).order_by(read_at).offset(place).limit(1)
    moment = db.session.scalar(query)
    return moment and max(timedelta(0), moment - broadcast.published_at)


def _member(broadcast: Broadcast) -> ColumnElement[bool]:
    return audiences.members_of(broadcast)


def _is_here(broadcast: Broadcast) -> ColumnElement[bool]:
    return and_(_member(broadcast), User.disabled_at.is_(None))


def _was_in_time(broadcast: Broadcast) -> ColumnElement[bool]:
    """Of a User in the audience now: whether it was for them while it was live."""
    in_time = was_here_in_time(broadcast)
    if broadcast.ended_at is None:
        return in_time
    return or_(in_time, User.id.in_(past_viewers.ids_of(broadcast)))


def _stages(broadcast: Broadcast) -> tuple[str, ...]:
    return STAGES if broadcast.requires_ack else STAGES[:3]


def _is_done(broadcast: Broadcast) -> ColumnElement[bool]:
    return (
        receipt_steps.is_acknowledged(broadcast)
        if broadcast.requires_ack
        else receipt_steps.read_at(broadcast).is_not(None)
    )


def _at_stage(broadcast: Broadcast, stage: str) -> Select:
    columns, here = (User.id, User.username, User.name), _is_here(broadcast)
    if stage == "undelivered":
        # in the order of the index and fenced off by OFFSET: PostgreSQL 15 walked five million receipts instead (22 s)
        reached = select(Receipt.user_id).where(Receipt.broadcast_id == broadcast.id).order_by(Receipt.user_id)
        reached = reached.offset(0).subquery()
        query = select(*columns, None).outerjoin(reached, reached.c.user_id == User.id)
        return query.where(here, reached.c.user_id.is_(None), _was_in_time(broadcast))
    seen, read_at, acknowledged = (
        receipt_steps.seen_at(broadcast),
        receipt_steps.read_at(broadcast),
        receipt_steps.is_acknowledged(broadcast),
    )
    since, condition = {
        "unseen": (receipt_steps.delivered_at(broadcast), and_(seen.is_(None), read_at.is_(None))),
        "unread": (seen, and_(seen.is_not(None), read_at.is_(None))),
        "unacknowledged": (read_at, and_(read_at.is_not(None), ~acknowledged)),
    }[stage]
    return _receipts(broadcast, *columns, since).where(here, condition)
