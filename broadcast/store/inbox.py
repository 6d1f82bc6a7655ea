"""What one person may see, newest first. Every query here asks `audiences.includes_viewer`: the audience is asked at each read.

The order is the log's: `seq` of the broadcast's MESSAGE event. So a page of the inbox and a replay of the stream can never
disagree, and the cursor of a list is a number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Select, and_, bindparam, case, false, func, or_, select

from broadcast.domain.alerts import Alert
from broadcast.domain.audience import Viewer
from broadcast.domain.card import Card
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Priority
from broadcast.domain.revisions import stands
from broadcast.store import audiences, receipt_steps, search
from broadcast.store.database import Moment, db
from broadcast.store.fast.card_cache import CARD_CACHE, CardKey
from broadcast.store.fast.prepared_query import Question
from broadcast.store.models import Broadcast, LogHead, Receipt, User

VIEWS = ("inbox", "unread", "archived", "snoozed", "all", "ended")


@dataclass(frozen=True, slots=True)
class Filters:
    """What narrows a view. Empty strings mean "any"; `view` is one of VIEWS, and "inbox" for anything else.

    The inbox leaves out what is archived or asleep, "unread" is a part of the inbox, "all" is everything that is live. Of
    "ended" nothing is found here: `store.ended_inbox` reads it.
    """

    view: str = "inbox"
    category: str = ""
    priority: str = ""
    q: str = ""

    @property
    def narrow(self) -> bool:
        """True when more than the view itself is asked for."""
        return bool(self.category or self.priority or self.q)


@dataclass(frozen=True, slots=True)
class Item:
    """One message of one person's inbox, and what that person did with it. `is_back` after a snooze, until it is read.

    `seq` is the number of its MESSAGE event.
    """

    card: Card
    seq: int
    is_read: bool
    read_at: datetime | None = None
    unread_at: datetime | None = None
    acked_at: datetime | None = None
    archived_at: datetime | None = None
    snoozed_until: datetime | None = None
    is_back: bool = False
    acked_revision: int | None = None
    ended_at: datetime | None = None

    @property
    def is_acknowledged(self) -> bool:
        """Whether an acknowledgement stands; one of an earlier revision may not."""
        return self.acked_at is not None and stands(self.acked_revision, self.card.ack_revision)

    @property
    def needs_ack(self) -> bool:
        return self.card.requires_ack and not self.is_acknowledged


class Unread(NamedTuple):
    """How many messages are unread, counting every event of the log up to seq `as_of` and none above, at that `version`."""

    count: int
    as_of: int
    version: int = 0


class Counts(NamedTuple):
    """How many messages each view holds, as `Unread` is meant."""

    inbox: int
    unread: int
    archived: int
    snoozed: int
    as_of: int
    version: int


def page(
    viewer: Viewer,
    filters: Filters,
    *,
    now: datetime,
    before: int | None = None,
    limit: int = 30,
    without: Sequence[int] = (),
) -> list[Item]:
    """At most `limit` messages with seq < `before` (None: from the newest), leaving out the ids `without`."""
    query = _filtered(_items, filters).order_by(Broadcast.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(Broadcast.seq < before)
    if without:
        query = query.where(Broadcast.id.not_in(without))
    return _read(query, viewer, now)


def to_acknowledge(viewer: Viewer, filters: Filters, *, now: datetime, limit: int) -> list[Item]:
    """What the person must still acknowledge and the filters show, the soonest due first."""
    query = _filtered(_items, filters).where(Broadcast.requires_ack, ~_is_acknowledged())
    order = (Broadcast.ack_due_at.is_(None), Broadcast.ack_due_at, Broadcast.seq.desc())
    return _read(query.order_by(*order).limit(limit), viewer, now)


def some(viewer: Viewer, filters: Filters, ids: Sequence[int], *, now: datetime) -> list[Item]:
    """Those of `ids` that the filters show, newest first."""
    query = _filtered(_items, filters).where(Broadcast.id.in_(ids)).order_by(Broadcast.seq.desc())
    return _read(query, viewer, now)


def one(viewer: Viewer, broadcast_id: int, *, now: datetime) -> Item | None:
    """The message if this person may see it now, else None."""
    return next(iter(some(viewer, Filters("all"), [broadcast_id], now=now)), None)


def visible_ids(viewer: Viewer, ids: Sequence[int], *, now: datetime) -> set[int]:
    """Which of these broadcasts this person may see now."""
    return set(db.session.scalars(_ids.where(Broadcast.id.in_(ids)), _given(viewer, now)))


def unread_ids(viewer: Viewer, filters: Filters, *, now: datetime, through: int) -> list[int]:
    """Unread messages that the filters show, up to and including seq `through`."""
    query = _filtered(_ids, filters).where(~_is_read(), Broadcast.seq <= through)
    return list(db.session.scalars(query, _given(viewer, now)))


def unread(viewer: Viewer, *, now: datetime) -> Unread:
    return Unread(*_unread.ask(_given(viewer, now)))


def counts(viewer: Viewer, *, now: datetime) -> Counts:
    return Counts(*db.session.connection().execute(_counts, _given(viewer, now)).one())


def count_filtered(viewer: Viewer, filters: Filters, *, now: datetime) -> int:
    """How many unread messages the filters show: what "Mark N read" says."""
    return db.session.scalar(_filtered(_count, filters).where(~_is_read()), _given(viewer, now))


def categories(viewer: Viewer, *, now: datetime) -> list[str]:
    """Categories that occur in this person's inbox, by name."""
    return list(db.session.scalars(_categories, _given(viewer, now)))


def pending(viewer: Viewer, *, now: datetime, through: int, limit: int) -> list[Item]:
    """The newest `limit` unread messages of the inbox up to seq `through`, in the order of the log."""
    query = _filtered(_items, Filters("unread")).where(Broadcast.seq <= through)
    return _read(query.order_by(Broadcast.seq.desc()).limit(limit), viewer, now)[::-1]


def alerting(viewer: Viewer, *, now: datetime, limit: int) -> list[Alert]:
    """What this person has not done yet and has not been told of since it was sent, shown again or reminded of.

    Told means that they had it in view, or put its alert away, on whatever page. An URGENT message that must be acknowledged
    is told until it is. What was there before a person first signed in is told only if something is still to be done about it.
    The most urgent first, then the newest.
    """
    order = case({Priority.URGENT: 0, Priority.HIGH: 1}, value=Broadcast.priority, else_=2)
    query = _alerting.order_by(order, Broadcast.seq.desc()).limit(limit)
    rows = db.session.execute(query, _given(viewer, now))
    return [Alert(*row[:4], since=max(moment for moment in row[4:] if moment)) for row in rows]


def changed_since(moment: datetime, *, until: datetime) -> list[tuple[int, int]]:
    """(user id, inbox version) of everybody whose receipts last changed after `moment` and not after `until`."""
    query = select(User.id, User.inbox_version).where(User.inbox_changed_at > moment, User.inbox_changed_at <= until)
    return [tuple(row) for row in db.session.execute(query)]


def _read(query: Select, viewer: Viewer, now: datetime) -> list[Item]:
    """The items of a query for `_items`. Who may see a card is asked once more where it is read after its row."""
    given = _given(viewer, now)

    def read(ids: list[int]) -> Iterator[tuple[CardKey, Card]]:
        for broadcast in db.session.scalars(_broadcasts.where(Broadcast.id.in_(ids)), given):
            yield CardKey(broadcast.id, broadcast.revision, broadcast.updated_at), broadcast.as_card()

    while True:
        rows = [(CardKey(*row[:_KEYED]), row[_KEYED:]) for row in db.session.execute(query, given)]
        cards = CARD_CACHE.current.of([key for key, _ in rows], read)
        if len(cards) == len(rows):
            return [Item(cards[key.id], *rest) for key, rest in rows]
        # one ended in between: a page that came out short would be taken for the last


def _given(viewer: Viewer, now: datetime) -> dict[str, Any]:
    """Values of the parameters that every statement here has."""
    return {"viewer_id": viewer.user_id, "viewer_roles": sorted(viewer.roles), "now": now}


def _base(*columns: Any) -> Select:
    """Live broadcasts that include the viewer, joined with their receipt and their watermark.

    The viewer is a parameter, so that the statements below are made once: making them took as long as running them.
    """
    viewer_id, now = bindparam("viewer_id", type_=BigInteger), bindparam("now", type_=Moment)
    return (
        select(*columns)
        .select_from(Broadcast)
        .join(User, User.id == viewer_id)
        .outerjoin(Receipt, and_(Receipt.broadcast_id == Broadcast.id, Receipt.user_id == viewer_id))
        .where(Broadcast.status == Status.ACTIVE, or_(Broadcast.expires_at.is_(None), Broadcast.expires_at > now))
        .where(audiences.includes_viewer(viewer_id, bindparam("viewer_roles", expanding=True)))
    )


def _is_read() -> ColumnElement[bool]:
    """What was read before a broadcast was shown again does not count."""
    renewed = Broadcast.renewed_at
    opened = and_(Receipt.read_at.is_not(None), or_(renewed.is_(None), Receipt.read_at >= renewed))
    passed = and_(Broadcast.seq <= User.read_through_seq, or_(renewed.is_(None), User.read_through_at >= renewed))
    return and_(Receipt.unread_at.is_(None), or_(opened, passed))


def _is_acknowledged() -> ColumnElement[bool]:
    """Never NULL, so that its negation is true for messages without a receipt."""
    return func.coalesce(receipt_steps.is_acknowledged(Broadcast), False)


def _still_counts(moment: Any) -> ColumnElement[bool]:
    """Whether what was done at `moment`, if ever, was done since the broadcast was last shown again. NULL for "never"."""
    return or_(Broadcast.renewed_at.is_(None), moment >= Broadcast.renewed_at)


def _is_archived() -> ColumnElement[bool]:
    return and_(Receipt.archived_at.is_not(None), _still_counts(Receipt.archived_at))


def _is_snoozed() -> ColumnElement[bool]:
    return and_(~_is_archived(), _sleeps())


def _is_here() -> ColumnElement[bool]:
    return and_(~_is_archived(), ~_sleeps())


def _sleeps() -> ColumnElement[bool]:
    """Never NULL, so that its negation is true for messages without a receipt."""
    is_asleep = Receipt.snoozed_until > bindparam("now", type_=Moment)
    return func.coalesce(and_(is_asleep, _still_counts(Receipt.snoozed_at)), False)


def _is_back() -> ColumnElement[bool]:
    returned = and_(Receipt.returned_at.is_not(None), _still_counts(Receipt.returned_at))
    slept = and_(Receipt.snoozed_until.is_not(None), _still_counts(Receipt.snoozed_at))
    return and_(func.coalesce(or_(returned, slept), False), Receipt.unread_at.is_not(None), _is_here())


def _filtered(query: Select, filters: Filters) -> Select:
    match filters.view:
        case "unread":
            query = query.where(~_is_read(), _is_here())
        case "archived":
            query = query.where(_is_archived())
        case "snoozed":
            query = query.where(_is_snoozed())
        case "all":
            pass
        case "ended":
            query = query.where(false())
        case _:
            query = query.where(_is_here())
    if filters.category:
        query = query.where(Broadcast.category == filters.category)
    if filters.priority:
        query = query.where(Broadcast.priority == filters.priority)
    return query.where(search.matches(filters.q)) if filters.q else query


def _of_this_moment(*columns: Any) -> Select:
    """Counts with the head of the log and the person's version, in one statement and so of one moment."""
    version = select(User.inbox_version).where(User.id == bindparam("viewer_id", type_=BigInteger))
    return _base(*columns, select(LogHead.seq).scalar_subquery(), func.coalesce(version.scalar_subquery(), 0))


def _waits_to_be_told() -> ColumnElement[bool]:
    is_urgent = Broadcast.priority == Priority.URGENT
    is_to_acknowledge = and_(Broadcast.requires_ack, ~_is_acknowledged())
    is_told_again = or_(Broadcast.renewed_at.is_not(None), Broadcast.reminded_at.is_not(None))
    is_loud = or_(Broadcast.priority.in_((Priority.HIGH, Priority.URGENT)), is_told_again)
    is_missing = or_(~_is_read(), and_(is_to_acknowledge, Broadcast.reminded_at.is_not(None)))
    came_to_stay = func.coalesce(User.first_sign_in_at, User.created_at)
    moments = (Broadcast.published_at, Broadcast.renewed_at, Broadcast.reminded_at)
    is_new = or_(is_urgent, is_to_acknowledge, *(moment >= came_to_stay for moment in moments))
    is_told = or_(_was_told(Receipt.first_seen_at), _was_told(Receipt.dismissed_at))
    return or_(and_(is_urgent, is_to_acknowledge), and_(is_loud, is_missing, is_new, ~is_told))


def _was_told(moment: Any) -> ColumnElement[bool]:
    since_reminder = or_(Broadcast.reminded_at.is_(None), moment >= Broadcast.reminded_at)
    return and_(moment.is_not(None), _still_counts(moment), since_reminder)


def _how_many(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count().filter(condition)


_KEYED = len(CardKey._fields)
_items = _base(
    Broadcast.id,
    Broadcast.revision,
    Broadcast.updated_at,
    Broadcast.seq,
    _is_read(),
    Receipt.read_at,
    Receipt.unread_at,
    Receipt.acked_at,
    case((_is_archived(), Receipt.archived_at)),
    case((_still_counts(Receipt.snoozed_at), Receipt.snoozed_until)),
    _is_back(),
    Receipt.acked_revision,
)
_broadcasts = _base(Broadcast)
_ids = _base(Broadcast.id)
_alerting = _base(
    Broadcast.id,
    Broadcast.seq,
    Broadcast.priority,
    Broadcast.category,
    Broadcast.published_at,
    Broadcast.renewed_at,
    Broadcast.reminded_at,
).where(_is_here(), Broadcast.priority != Priority.LOW, _waits_to_be_told())
_count = _base(func.count())
_unread = Question(_of_this_moment(func.count()).where(~_is_read(), _is_here()))
_counts = _of_this_moment(
    _how_many(_is_here()),
    _how_many(and_(~_is_read(), _is_here())),
    _how_many(_is_archived()),
    _how_many(_is_snoozed()),
)
_categories = _base(Broadcast.category).where(Broadcast.category.is_not(None)).distinct().order_by(Broadcast.category)
