"""What one user may see, newest first. Every query checks the audience with `audiences.includes_viewer`.

The order is the log's: `seq` of the broadcast's MESSAGE event. So an inbox page and a stream replay can never disagree,
and the cursor of a list is a number.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    false,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
)

from broadcast.domain.alerts import Alert
from broadcast.domain.audience import Viewer
from broadcast.domain.card import Card
from broadcast.domain.events import Cursor
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Priority
from broadcast.domain.revisions import is_acknowledgement_valid
from broadcast.store import audiences, receipt_steps, search
from broadcast.store.database import db
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.fast.card_cache import CARD_CACHE, CardKey
from broadcast.store.fast.prepared_query import PreparedQuery
from broadcast.store.models import Broadcast, LogHead, Receipt, User
from broadcast.store.types import UtcDateTime

MAX_COUNTED_ENDED = 99  # more are "99+": counting all that ever ended would take longer every year
_NOW = bindparam("now", type_=UtcDateTime)
_VIEWER_ID = bindparam("viewer_id", type_=BigInteger)
_IDS = bindparam("ids", expanding=True)
_CARD_KEY_COLUMNS = tuple(getattr(Broadcast, name) for name in CardKey._fields)


@dataclass(frozen=True, slots=True)
class InboxFilters:
    """Filters of a view. Empty strings mean "any"; `view` is one of VIEWS, anything else counts as "inbox".

    "inbox" excludes archived and snoozed messages, "unread" is a part of it, "all" is everything that is live. "ended"
    matches nothing in an Inbox: EndedInbox reads it.
    """

    view: str = "inbox"
    category: str = ""
    priority: str = ""
    q: str = ""

    @property
    def is_narrowed(self) -> bool:
        """Whether any filter besides the view is set."""
        return bool(self.category or self.priority or self.q)


@dataclass(slots=True)  # not frozen, which takes three times as long to make
class InboxItem:
    """One message of a user's inbox, and what the user did with it. `is_back` after a snooze, until it is read.

    `seq` is the number of its MESSAGE event. `has_receipt` is true when a receipt is known to be stored.
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
    has_receipt: bool = field(default=False, compare=False)

    @property
    def is_acknowledged(self) -> bool:
        """Whether an acknowledgement stands; one of an earlier revision may not."""
        return self.acked_at is not None and is_acknowledgement_valid(self.acked_revision, self.card.ack_revision)

    @property
    def needs_ack(self) -> bool:
        return self.card.requires_ack and not self.is_acknowledged


class UnreadCount(NamedTuple):
    """The number of unread messages at exactly seq `as_of` of the log, in its `epoch`, and inbox version `version`."""

    count: int
    as_of: int
    version: int = 0
    epoch: str = ""


class ViewCounts(NamedTuple):
    """The number of messages in each view; see `UnreadCount`."""

    inbox: int
    unread: int
    archived: int
    snoozed: int
    as_of: int
    version: int


def _select_included(columns: Sequence[Any], *conditions: ColumnElement[bool], requires_receipt: bool) -> Select:
    """Broadcasts that meet these conditions and include the viewer, joined with their receipt and their watermark.

    The viewer is a parameter, so that the statements below are built once: building them took as long as running them.
    """
    return (
        select(*columns)
        .select_from(Broadcast)
        .join(User, User.id == _VIEWER_ID)
        .join(
            Receipt,
            and_(Receipt.broadcast_id == Broadcast.id, Receipt.user_id == _VIEWER_ID),
            isouter=not requires_receipt,
        )
        .where(*conditions, audiences.includes_viewer(_VIEWER_ID, bindparam("viewer_roles", expanding=True)))
    )


def _order_categories(query: Select) -> Select:
    """The categories that a query for `Broadcast.category` finds, each once, by name."""
    return query.where(Broadcast.category.is_not(None)).distinct().order_by(Broadcast.category)


def _has_status(status: Status) -> ColumnElement[bool]:
    """The status as text: a partial index depends on it, so SQLite plans a statement anew whenever one is bound. That
    took 200 of the 220 µs of a count.
    """
    return Broadcast.status == literal_column(f"'{status}'")


def _select_visible(*columns: Any) -> Select:
    """Live broadcasts that include the viewer."""
    is_unexpired = or_(Broadcast.expires_at.is_(None), Broadcast.expires_at > _NOW)
    return _select_included(columns, _has_status(Status.ACTIVE), is_unexpired, requires_receipt=False)


def _select_ended(*columns: Any) -> Select:
    """Also what is past its end before the scheduler has run: no other view shows it any more."""
    is_past_end = and_(_has_status(Status.ACTIVE), Broadcast.expires_at <= _NOW)
    is_ended = or_(_has_status(Status.EXPIRED), is_past_end)
    return _select_included(columns, is_ended, Broadcast.seq.is_not(None), requires_receipt=True)


def _is_since_renewal(moment: Any) -> ColumnElement[bool]:
    """Whether something done at `moment` was done since the broadcast was last shown again. NULL for "never"."""
    return or_(Broadcast.renewed_at.is_(None), moment >= Broadcast.renewed_at)


def _was_alerted(moment: Any) -> ColumnElement[bool]:
    is_since_reminder = or_(Broadcast.reminded_at.is_(None), moment >= Broadcast.reminded_at)
    return and_(moment.is_not(None), _is_since_renewal(moment), is_since_reminder)


# what was done before a broadcast was shown again does not count
_is_opened = and_(Receipt.read_at.is_not(None), _is_since_renewal(Receipt.read_at))
_is_below_watermark = and_(Broadcast.seq <= User.read_through_seq, _is_since_renewal(User.read_through_at))
_is_read = and_(Receipt.unread_at.is_(None), or_(_is_opened, _is_below_watermark))
_is_archived = and_(Receipt.archived_at.is_not(None), _is_since_renewal(Receipt.archived_at))
# never NULL, so that their negations are true for messages without a receipt
_is_acknowledged = func.coalesce(receipt_steps.is_acknowledged_condition(Broadcast), False)
_is_asleep = func.coalesce(and_(Receipt.snoozed_until > _NOW, _is_since_renewal(Receipt.snoozed_at)), False)
_is_in_inbox = and_(~_is_archived, ~_is_asleep)
_conditions_by_view = {
    "inbox": _is_in_inbox,
    "unread": and_(~_is_read, _is_in_inbox),
    "archived": _is_archived,
    "snoozed": and_(~_is_archived, _is_asleep),
    "all": true(),
    "ended": false(),
}
VIEWS = tuple(_conditions_by_view)
_has_returned = and_(Receipt.returned_at.is_not(None), _is_since_renewal(Receipt.returned_at))
_has_slept = and_(Receipt.snoozed_until.is_not(None), _is_since_renewal(Receipt.snoozed_at))
_is_back = and_(func.coalesce(or_(_has_returned, _has_slept), False), Receipt.unread_at.is_not(None), _is_in_inbox)


def _needs_alert() -> ColumnElement[bool]:
    is_urgent = Broadcast.priority == Priority.URGENT
    is_to_acknowledge = and_(Broadcast.requires_ack, ~_is_acknowledged)
    is_repeated_alert = or_(Broadcast.renewed_at.is_not(None), Broadcast.reminded_at.is_not(None))
    is_alerting = or_(Broadcast.priority.in_((Priority.HIGH, Priority.URGENT)), is_repeated_alert)
    is_unfinished = or_(~_is_read, and_(is_to_acknowledge, Broadcast.reminded_at.is_not(None)))
    joined_at = func.coalesce(User.first_sign_in_at, User.created_at)
    moments = (Broadcast.published_at, Broadcast.renewed_at, Broadcast.reminded_at)
    is_new = or_(is_urgent, is_to_acknowledge, *(moment >= joined_at for moment in moments))
    was_alerted = or_(_was_alerted(Receipt.first_seen_at), _was_alerted(Receipt.dismissed_at))
    return or_(and_(is_urgent, is_to_acknowledge), and_(is_alerting, is_unfinished, is_new, ~was_alerted))


@lru_cache  # of the few statements below
def _select_view(query: Select, view: str) -> Select:
    return query.where(_conditions_by_view.get(view, _is_in_inbox))


@lru_cache
def _select_by_ids(query: Select) -> Select:
    return query.where(Broadcast.id.in_(_IDS)).order_by(Broadcast.seq.desc())


_id_query = _select_visible(Broadcast.id)
_unread_ids_query = _id_query.where(~_is_read, Broadcast.seq <= bindparam("through"))
_alert_query = _select_visible(
    Broadcast.id,
    Broadcast.seq,
    Broadcast.priority,
    Broadcast.category,
    Broadcast.published_at,
    Broadcast.renewed_at,
    Broadcast.reminded_at,
).where(_is_in_inbox, Broadcast.priority != Priority.LOW, _needs_alert())
_count_query = _select_visible(func.count())
# counts with the log head and the inbox version, in one statement and so consistent
_version = select(User.inbox_version).where(User.id == _VIEWER_ID).scalar_subquery()
_snapshot = (select(LogHead.seq).scalar_subquery(), func.coalesce(_version, 0))
_epoch = select(LogHead.epoch).scalar_subquery()
_unread_query = PreparedQuery(_select_visible(func.count(), *_snapshot, _epoch).where(_conditions_by_view["unread"]))
_counts = [func.count().filter(_conditions_by_view[view]) for view in ("inbox", "unread", "archived", "snoozed")]
_counts_query = _select_visible(*_counts, *_snapshot)
_ended_ids = _select_ended(Broadcast.id).limit(MAX_COUNTED_ENDED + 1).subquery()
_ended_count_query = PreparedQuery(select(func.count()).select_from(_ended_ids))


class MessageList:
    """Messages that this user may see at `now`, asked of the database each time: live ones (`Inbox`), or ended ones."""

    _item_query: ClassVar[Select]  # the columns of a CardKey, then the fields of InboxItem after `card`
    _broadcast_query: ClassVar[Select]  # checks again who may see a card that is read after its row
    _categories_query: ClassVar[Select]
    _execution_options: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, viewer: Viewer, now: datetime):
        self._viewer, self._now = viewer, now
        self._parameters = {"viewer_id": viewer.user_id, "viewer_roles": sorted(viewer.roles), "now": now}

    def list_page(
        self, filters: InboxFilters, *, before: int | None = None, limit: int = 30, excluded_ids: Collection[int] = ()
    ) -> list[InboxItem]:
        """At most `limit` messages with seq < `before` (None: from the newest), without `excluded_ids`."""
        query = self._apply_filters(self._item_query, filters).order_by(Broadcast.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(Broadcast.seq < before)
        if excluded_ids:
            query = query.where(Broadcast.id.not_in(excluded_ids))
        return self._load_items(query)

    def list_by_ids(self, filters: InboxFilters, ids: Sequence[int]) -> list[InboxItem]:
        """Those of `ids` that match the filters, newest first."""
        return self._load_items(self._apply_filters(_select_by_ids(self._item_query), filters), ids=list(ids))

    def find(self, broadcast_id: int) -> InboxItem | None:
        """The message if this user may see it now, else None."""
        return next(iter(self.list_by_ids(InboxFilters("all"), [broadcast_id])), None)

    def list_categories(self) -> list[str]:
        """Categories that occur in it, by name."""
        query = self._categories_query
        return list(db.session.scalars(query, self._parameters, execution_options=self._execution_options))

    def _apply_filters(self, query: Select, filters: InboxFilters) -> Select:
        """Filter by everything but the view."""
        if filters.category:
            query = query.where(Broadcast.category == filters.category)
        if filters.priority:
            query = query.where(Broadcast.priority == filters.priority)
        return query.where(search.matches(filters.q)) if filters.q else query

    def _load_items(self, query: Select, **parameters: Any) -> list[InboxItem]:
        parameters = self._parameters | parameters
        while True:
            connection = db.session.connection()
            result = connection.execute(query, parameters, execution_options=self._execution_options)
            rows = [(CardKey(id, revision, updated_at), state) for id, revision, updated_at, *state in result]
            cards = self._load_cards([key for key, _ in rows])
            if len(cards) == len(rows):
                return [InboxItem(cards[key.id], *state) for key, state in rows]
            # one ended in between: a short page would be taken for the last

    def _load_cards(self, keys: Sequence[CardKey]) -> dict[int, Card]:
        """Cards by broadcast id, without those that this user may no longer see."""
        return CARD_CACHE.current.get_many(keys, self._read_cards)

    def _read_cards(self, ids: Iterable[int]) -> Iterator[tuple[CardKey, Card]]:
        for broadcast in db.session.scalars(self._broadcast_query.where(Broadcast.id.in_(ids)), self._parameters):
            yield CardKey(broadcast.id, broadcast.revision, broadcast.updated_at), broadcast.to_card()


class Inbox(MessageList):
    """A user's live messages. `head` is the position in the log from where a stream continues."""

    _item_query = _select_visible(
        *_CARD_KEY_COLUMNS,
        Broadcast.seq,
        _is_read,
        Receipt.read_at,
        Receipt.unread_at,
        Receipt.acked_at,
        case((_is_archived, Receipt.archived_at)),
        case((_is_since_renewal(Receipt.snoozed_at), Receipt.snoozed_until)),
        _is_back,
        Receipt.acked_revision,
    )
    _broadcast_query = _select_visible(Broadcast)
    _categories_query = _order_categories(_select_visible(Broadcast.category))

    def __init__(self, viewer: Viewer, now: datetime, head: Cursor | None = None):
        super().__init__(viewer, now)
        self.head = head

    def list_to_acknowledge(self, filters: InboxFilters, *, limit: int) -> list[InboxItem]:
        """Filtered messages that the user must still acknowledge, earliest deadline first."""
        query = self._apply_filters(self._item_query, filters).where(Broadcast.requires_ack, ~_is_acknowledged)
        order = (Broadcast.ack_due_at.is_(None), Broadcast.ack_due_at, Broadcast.seq.desc())
        return self._load_items(query.order_by(*order).limit(limit))

    def filter_visible_ids(self, ids: Sequence[int]) -> set[int]:
        """Those of these broadcasts that this user may see now."""
        parameters = self._parameters | {"ids": list(ids)}
        return set(db.session.connection().execute(_select_by_ids(_id_query), parameters).scalars())

    def list_unread_ids(self, filters: InboxFilters, *, through: int) -> list[int]:
        """Ids of filtered unread messages, up to and including seq `through`."""
        query, parameters = self._apply_filters(_unread_ids_query, filters), self._parameters | {"through": through}
        return list(db.session.connection().execute(query, parameters).scalars())

    def count_unread(self) -> UnreadCount:
        return UnreadCount(*_unread_query.fetch_first(self._parameters))

    def count_views(self) -> ViewCounts:
        return ViewCounts(*db.session.connection().execute(_counts_query, self._parameters).one())

    def count_unread_filtered(self, filters: InboxFilters) -> int:
        """The number of filtered unread messages, as in "Mark N read"."""
        return db.session.scalar(self._apply_filters(_count_query, filters).where(~_is_read), self._parameters)

    def list_unread_backlog(self, *, through: int, limit: int) -> list[InboxItem]:
        """The newest `limit` unread messages of the inbox up to seq `through`, in log order."""
        query = self._apply_filters(self._item_query, InboxFilters("unread")).where(Broadcast.seq <= through)
        return self._load_items(query.order_by(Broadcast.seq.desc()).limit(limit))[::-1]

    def list_alerts(self, *, limit: int) -> list[Alert]:
        """What this user has neither handled nor been alerted of since it was sent, shown again or reminded of.

        Alerted means that they had it in view or dismissed its alert, on any page. An URGENT message that must be
        acknowledged alerts until it is. What was there before a user first signed in alerts only if it still requires
        an action. Most urgent first, then newest.
        """
        order = case({Priority.URGENT: 0, Priority.HIGH: 1}, value=Broadcast.priority, else_=2)
        rows = db.session.execute(_alert_query.order_by(order, Broadcast.seq.desc()).limit(limit), self._parameters)
        return [Alert(*row[:4], raised_at=max(moment for moment in row[4:] if moment)) for row in rows]

    def _apply_filters(self, query: Select, filters: InboxFilters) -> Select:
        return super()._apply_filters(_select_view(query, filters.view), filters)


class EndedInbox(MessageList):
    """The view "Ended": received broadcasts that have ended, to be read again, whatever the view of the filters.

    It shows what this user has a receipt for and is still in the audience of: a user who joined later never received
    it, and one who lost the role may no longer see it. Recalled broadcasts are not shown. It ignores archiving and
    snoozing.
    """

    _item_query = _select_ended(
        *_CARD_KEY_COLUMNS,
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
    _broadcast_query = _select_ended(Broadcast)
    _categories_query = _order_categories(_select_ended(Broadcast.category))
    _execution_options = RUN_IN_THREAD  # SQLite sorts everything this user ever received to find the newest

    def count(self) -> int:
        """How many there are; MAX_COUNTED_ENDED + 1 stands for more."""
        return _ended_count_query.fetch_first(self._parameters)[0]


def list_version_changes(since: datetime, *, until: datetime) -> list[tuple[int, int]]:
    """(user id, inbox version) of users whose receipts last changed after `since` and not after `until`."""
    query = select(User.id, User.inbox_version).where(User.inbox_changed_at > since, User.inbox_changed_at <= until)
    return [tuple(row) for row in db.session.execute(query)]
