"""Statistics of one broadcast: how soon it is read, by which roles, who is missing, who has left. Counts distinct
users.

`domain.stats` defines the terms; `store.broadcast_totals` counts the totals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, Select, and_, case, exists, func, or_, select

from broadcast.domain.stats import BroadcastTotals
from broadcast.store import audiences, past_viewers, receipt_steps, users
from broadcast.store.broadcast_totals import joined_before_end
from broadcast.store.database import db
from broadcast.store.models import Broadcast, EarlierAcknowledgement, Receipt, RevisionText, User, UserRole

# Points of the curve, as time after sending; evenly spaced on its axis, as most reading happens early
CURVE_OFFSETS = tuple(
    timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 240, 720, 1440, 3 * 1440, 7 * 1440, 30 * 1440)
)
MAX_ROLES = 20  # largest roles in the table by role
STAGES = ("undelivered", "unseen", "unread", "unacknowledged")  # worst first
SORTS = ("user", "name", "delivered", "seen", "read", "acknowledged")
NO_ROLE, NO_LONGER_HERE = "No role", "No longer here"  # no role can have these names


@dataclass(frozen=True, slots=True)
class ReadLatency:
    """How soon it was read. Half of the readers had read it after `p50`, nine in ten after `p90`; None without readers.

    `delivered` and `read` count users at each of CURVE_OFFSETS that has passed; the last item is the number now.
    """

    p50: timedelta | None
    p90: timedelta | None
    delivered: list[int]
    read: list[int]


@dataclass(frozen=True, slots=True)
class RoleStats:
    """Current members with this role; NO_ROLE and NO_LONGER_HERE stand for the others."""

    name: str
    people: int
    delivered: int
    read: int
    acknowledged: int


@dataclass(frozen=True, slots=True)
class MissingRecipient:
    """A user who has not done yet what is asked, and how far they are: one of STAGES."""

    user_id: int
    username: str
    name: str
    stage: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """An acknowledgement. `revision` and `hash` are None where the text is not known."""

    at: datetime
    revision: int | None
    hash: str | None


@dataclass(frozen=True, slots=True)
class RecipientProgress:
    """One targeted user with the time of each step. `earlier_by_user` are acknowledgements that no longer stand."""

    user_id: int
    username: str
    name: str
    is_current_member: bool
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
class RevisionStats:
    """How many users last acknowledged this text, and whether that still stands. `revision` is None if unknown."""

    revision: int | None
    people: int
    stands: bool
    has_text: bool


def measure_read_latency(broadcast: Broadcast, *, now: datetime) -> ReadLatency:
    """The curve and the percentiles of a sent broadcast; the curve ends at the totals."""
    moments = [broadcast.published_at + step for step in CURVE_OFFSETS if broadcast.published_at + step < now]
    delivered_at, read_at = receipt_steps.delivered_at_column(broadcast), receipt_steps.read_at_column(broadcast)
    delivered_counts = [*(func.count().filter(delivered_at <= moment) for moment in moments), func.count()]
    read_counts = [*(func.count().filter(read_at <= moment) for moment in moments), func.count(read_at)]
    counts = list(db.session.execute(_select_receipts(broadcast, *delivered_counts, *read_counts)).one())
    delivered, read = counts[: len(delivered_counts)], counts[len(delivered_counts) :]
    p50, p90 = (_compute_percentile(broadcast, read[-1], fraction) for fraction in (0.5, 0.9))
    return ReadLatency(p50, p90, delivered, read)


def count_by_role(broadcast: Broadcast, totals: BroadcastTotals) -> list[RoleStats]:
    """Statistics of the largest roles, of members without a role, and of users who left; consistent with `totals`.

    A user with two roles counts in both.
    """
    member_counts, late_counts = _count_members_by_role(broadcast), _count_late_by_role(broadcast)
    read, acknowledged = receipt_steps.read_at_column(broadcast), receipt_steps.acknowledged_at_column(broadcast)
    query = (
        _select_receipts(broadcast, UserRole.role_name, func.count(), func.count(read), func.count(acknowledged))
        .outerjoin(UserRole, UserRole.user_id == User.id)
        .where(_is_current_member(broadcast))
        .group_by(UserRole.role_name)
    )
    reached_counts = {name: counts for name, *counts in db.session.execute(query)}
    stats_by_name = {
        name: RoleStats(
            name or NO_ROLE, member_counts.get(name, 0) - late_counts.get(name, 0), *reached_counts.get(name, (0, 0, 0))
        )
        for name in member_counts.keys() | reached_counts.keys()
    }
    without_role, gone = stats_by_name.pop(None, None), totals.gone
    role_stats = [role for role in stats_by_name.values() if role.people]
    role_stats = sorted(role_stats, key=lambda role: (-role.people, role.name))[:MAX_ROLES]
    if without_role and without_role.people:
        role_stats.append(without_role)
    if gone.recipients:
        role_stats.append(RoleStats(NO_LONGER_HERE, gone.recipients, gone.delivered, gone.read, gone.acknowledged))
    return role_stats


def count_by_revision(broadcast: Broadcast) -> list[RevisionStats]:
    """The number of acknowledgements by revision, newest first; unknown revisions last."""
    is_standing = receipt_steps.is_acknowledged_condition(broadcast)
    is_text = and_(RevisionText.broadcast_id == broadcast.id, RevisionText.revision == Receipt.acked_revision)
    query = (
        select(
            Receipt.acked_revision, func.count(), func.count().filter(is_standing), func.count(RevisionText.revision)
        )
        .outerjoin(RevisionText, is_text)
        .where(Receipt.broadcast_id == broadcast.id, Receipt.acked_at.is_not(None))
        .group_by(Receipt.acked_revision)
        .order_by(Receipt.acked_revision.desc().nulls_last())
    )
    return [
        RevisionStats(revision, count, bool(standing_count), bool(text_count))
        for revision, count, standing_count, text_count in db.session.execute(query)
    ]


def _count_members_by_role(broadcast: Broadcast) -> dict[str | None, int]:
    """How many current members have each role; under None, how many have none."""
    is_enabled_member = and_(
        audiences.is_member_of(broadcast, should_start_from_roles=True), User.disabled_at.is_(None)
    )

    def count_without_role() -> int:
        has_role = exists().where(UserRole.user_id == User.id)
        return db.session.scalar(select(func.count(User.id)).where(is_enabled_member, ~has_role))

    def count() -> dict[str | None, int]:
        query = select(UserRole.role_name, func.count()).join(User, User.id == UserRole.user_id)
        query = query.where(is_enabled_member).group_by(UserRole.role_name)
        without_role = {} if broadcast.audience_kind == "roles" else {None: count_without_role()}
        return dict(map(tuple, db.session.execute(query))) | without_role

    if broadcast.audience_kind == "users":
        return count()
    if broadcast.audience_kind == "everyone" and not broadcast.has_exceptions:
        without_role_count = audiences.cache_until_membership_changes("no role", count_without_role)
        return users.count_users_by_role() | {None: without_role_count}
    return audiences.cache_until_membership_changes(("by role", audiences.get_audience(broadcast)), count)


def _count_late_by_role(broadcast: Broadcast) -> dict[str | None, int]:
    """How many of them joined after the end, by role: it was never for them."""
    if broadcast.ended_at is None:
        return {}
    has_receipt = exists().where(Receipt.broadcast_id == broadcast.id, Receipt.user_id == User.id)
    is_late = and_(User.viewer_since > broadcast.ended_at, ~has_receipt, ~_was_member_in_time(broadcast))
    query = select(UserRole.role_name, func.count()).select_from(User)
    query = query.outerjoin(UserRole, UserRole.user_id == User.id).where(_is_current_member(broadcast), is_late)
    return dict(map(tuple, db.session.execute(query.group_by(UserRole.role_name))))


def list_missing(broadcast: Broadcast, *, after: tuple[int, int] = (0, 0), limit: int) -> list[MissingRecipient]:
    """Users who have not read it, or not acknowledged it where required: worst first, then by user id.

    `after` is the stage number and the user id of the last one shown. Each stage is an index scan that ends with the
    page, so a million missing users cost no more than fifty; but a million who received it must be skipped.
    """
    recipients: list[MissingRecipient] = []
    stages = STAGES if broadcast.requires_ack else STAGES[:3]
    for stage_number, stage in enumerate(stages[after[0] :], start=after[0]):
        query = _select_recipients_at_stage(broadcast, stage).order_by(User.id).limit(limit - len(recipients))
        if stage_number == after[0]:
            query = query.where(User.id > after[1])
        recipients += [MissingRecipient(*row[:3], stage, row[3]) for row in db.session.execute(query)]
        if len(recipients) == limit:
            break
    return recipients


def list_recipient_progress(
    broadcast: Broadcast,
    *,
    sort: str = "user",
    descending: bool = False,
    offset: int = 0,
    after: int = 0,
    limit: int,
    subset: Literal["all", "done", "gone"] = "all",
) -> list[RecipientProgress]:
    """The targeted users with the time of each step: each once, and no others, so that the rows add up to the totals.

    `sort` is one of SORTS; users without that time come last. `after` is a user id, for paging in the order of "user".
    `subset` selects current members who are done ("done"), or users who have left ("gone").
    """
    is_current_member = _is_current_member(broadcast)
    timestamps = _build_timestamps(broadcast)
    order = {"user": User.id, "name": func.lower(User.name)}.get(sort, timestamps.get(sort))
    order = order.desc() if descending else order.asc()
    user_columns = (User.id, User.username, User.name, is_current_member, User.disabled_at.is_not(None))
    query = (
        select(*user_columns, *timestamps.values(), Receipt.acked_at, Receipt.acked_revision, Receipt.acked_hash)
        .outerjoin(Receipt, and_(Receipt.user_id == User.id, Receipt.broadcast_id == broadcast.id))
        .where(_is_in_subset(broadcast, subset))
        .order_by(order.nulls_last() if sort in timestamps else order, User.id)
        .limit(limit)
        .offset(offset)
    )
    rows = db.session.execute(query.where(User.id > after) if after else query).all()
    return _attach_earlier(broadcast, rows)


def _build_timestamps(broadcast: Broadcast) -> dict[str, ColumnElement[datetime]]:
    """All NULL without a receipt: it has not reached that user, whatever they marked read."""
    columns = {
        "delivered": receipt_steps.delivered_at_column,
        "seen": receipt_steps.seen_at_column,
        "read": receipt_steps.read_at_column,
        "acknowledged": receipt_steps.acknowledged_at_column,
    }
    has_receipt = Receipt.user_id.is_not(None)
    return {name: case((has_receipt, column(broadcast))).label(f"{name}_at") for name, column in columns.items()}


def _is_in_subset(broadcast: Broadcast, subset: str) -> ColumnElement[bool]:
    is_current_member, has_receipt = _is_current_member(broadcast), Receipt.user_id.is_not(None)
    if subset == "done":
        is_acknowledged = receipt_steps.is_acknowledged_condition(broadcast)
        is_read = receipt_steps.read_at_column(broadcast).is_not(None)
        return and_(is_current_member, has_receipt, is_acknowledged if broadcast.requires_ack else is_read)
    was_targeted = or_(has_receipt, User.id.in_(past_viewers.select_user_ids(broadcast)))
    if subset == "gone":
        return and_(~is_current_member, was_targeted)
    return or_(and_(is_current_member, joined_before_end(broadcast)), was_targeted)


def _attach_earlier(broadcast: Broadcast, rows: Sequence[Row]) -> list[RecipientProgress]:
    """Build the rows with the acknowledgements that no longer stand, where users were asked again."""
    earlier_by_user: dict[int, list[Acknowledgement]] = {}
    if broadcast.ack_revision > 1:
        earlier_query = select(EarlierAcknowledgement).where(EarlierAcknowledgement.broadcast_id == broadcast.id)
        page_query = earlier_query.where(EarlierAcknowledgement.user_id.in_([row[0] for row in rows]))
        for earlier_row in db.session.scalars(page_query.order_by(EarlierAcknowledgement.at)):
            earlier_by_user.setdefault(earlier_row.user_id, []).append(
                Acknowledgement(earlier_row.at, earlier_row.revision or None, earlier_row.hash)
            )
    progress_rows = []
    for *user_values, delivered_at, seen_at, read_at, standing_at, acked_at, revision, text_hash in rows:
        acknowledgement = Acknowledgement(acked_at, revision, text_hash) if acked_at else None
        superseded = earlier_by_user.get(user_values[0], [])
        if acknowledgement and not standing_at:
            superseded, acknowledgement = [*superseded, acknowledgement], None
        user_values[3:5] = map(bool, user_values[3:5])
        progress_rows.append(
            RecipientProgress(*user_values, delivered_at, seen_at, read_at, acknowledgement, tuple(superseded))
        )
    return progress_rows


def _select_receipts(broadcast: Broadcast, *columns: Any) -> Select:
    query = select(*columns).select_from(Receipt).join(User, User.id == Receipt.user_id)
    return query.where(Receipt.broadcast_id == broadcast.id)


def _compute_percentile(broadcast: Broadcast, readers: int, fraction: float) -> timedelta | None:
    if not readers:
        return None
    read_at = receipt_steps.read_at_column(broadcast)
    index = min(readers - 1, int(readers * fraction))
    query = _select_receipts(broadcast, read_at).where(read_at.is_not(None)).order_by(read_at).offset(index).limit(1)
    moment = db.session.scalar(query)
    return moment and max(timedelta(0), moment - broadcast.published_at)


def _is_current_member(broadcast: Broadcast) -> ColumnElement[bool]:
    return and_(audiences.is_member_of(broadcast), User.disabled_at.is_(None))


def _was_member_in_time(broadcast: Broadcast) -> ColumnElement[bool]:
    """The condition that it was for this current member while it was live."""
    has_joined_before_end = joined_before_end(broadcast)
    if broadcast.ended_at is None:
        return has_joined_before_end
    return or_(has_joined_before_end, User.id.in_(past_viewers.select_user_ids(broadcast)))


def _select_recipients_at_stage(broadcast: Broadcast, stage: str) -> Select:
    columns, is_current_member = (User.id, User.username, User.name), _is_current_member(broadcast)
    if stage == "undelivered":
        # in index order and fenced off by OFFSET: PostgreSQL 15 scanned five million receipts instead (22 s)
        receipt_user_ids = select(Receipt.user_id).where(Receipt.broadcast_id == broadcast.id).order_by(Receipt.user_id)
        receipt_user_ids = receipt_user_ids.offset(0).subquery()
        query = select(*columns, None).outerjoin(receipt_user_ids, receipt_user_ids.c.user_id == User.id)
        return query.where(is_current_member, receipt_user_ids.c.user_id.is_(None), _was_member_in_time(broadcast))
    seen_at, read_at = receipt_steps.seen_at_column(broadcast), receipt_steps.read_at_column(broadcast)
    is_acknowledged = receipt_steps.is_acknowledged_condition(broadcast)
    since, condition = {
        "unseen": (receipt_steps.delivered_at_column(broadcast), and_(seen_at.is_(None), read_at.is_(None))),
        "unread": (seen_at, and_(seen_at.is_not(None), read_at.is_(None))),
        "unacknowledged": (read_at, and_(read_at.is_not(None), ~is_acknowledged)),
    }[stage]
    return _select_receipts(broadcast, *columns, since).where(is_current_member, condition)
