"""One user's inbox at one moment, for everything that a page or a stream asks of it.

As a rule it is read from memory: the worker's live broadcasts (`store.live_broadcasts`) with this user's receipts,
which are one prepared query. Where that is not possible, each question is a query of `store.inbox`, with the same
answer (`tests/integration/store/test_live_inbox.py`).
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Integer, Text, and_, any_, bindparam, cast, func, select

from broadcast.domain import inbox_state
from broadcast.domain.alerts import Alert
from broadcast.domain.audience import Viewer
from broadcast.domain.card import Card
from broadcast.domain.events import Cursor
from broadcast.domain.inbox_state import NO_RECEIPT, InboxState, ReceiptTimes, Watermark
from broadcast.domain.message import Priority
from broadcast.store.database import db
from broadcast.store.fast.prepared_query import PreparedQuery
from broadcast.store.inbox import Inbox, InboxFilters, InboxItem, UnreadCount, ViewCounts
from broadcast.store.live_broadcasts import LIVE_BROADCASTS, LiveBroadcast, LiveSet
from broadcast.store.models import LogHead, Receipt, User

_MAX_ATTEMPTS = 3  # to read live broadcasts and receipts of one moment, while others publish
_URGENCY = {Priority.URGENT: 0, Priority.HIGH: 1}


def open_inbox(viewer: Viewer, *, now: datetime) -> Inbox:
    """The inbox of this user at `now`. Raises TemporarilyUnavailable when the database is locked or down."""
    live_broadcasts = LIVE_BROADCASTS.current
    live = live_broadcasts.current
    for _ in range(_MAX_ATTEMPTS):
        head, user, receipts = _read_user(viewer.user_id, live.ids if live else [])
        if live is not None and live.head == head and live_broadcasts.is_checked():
            return _LiveInbox(viewer, live, user, receipts, now)
        live = live_broadcasts.catch_up(head)
        if live is None:
            break
    return Inbox(viewer, now, head)


class _UserRow(NamedTuple):
    inbox_version: int
    watermark: Watermark


def _read_user(user_id: int, broadcast_ids: list[int]) -> tuple[Cursor, _UserRow | None, dict[int, ReceiptTimes]]:
    """The log's head, the user if there is one, and their receipts of these broadcasts, all of one moment."""
    query, encode_ids = _queries[db.engine.dialect.name]
    rows = query.fetch_all({"viewer_id": user_id, "broadcast_ids": encode_ids(broadcast_ids)})
    epoch, seq, version, *watermark = rows[0][:_USER_COLUMN_COUNT]
    user = None if version is None else _UserRow(version, Watermark(*watermark))
    receipts = {
        row[_USER_COLUMN_COUNT]: ReceiptTimes(*row[_USER_COLUMN_COUNT + 1 :])
        for row in rows
        if row[_USER_COLUMN_COUNT] is not None
    }
    return Cursor(epoch, seq), user, receipts


def _prepare_query(is_one_of_ids: ColumnElement[bool]) -> PreparedQuery:
    viewer_id = bindparam("viewer_id", type_=BigInteger)
    return PreparedQuery(
        select(
            LogHead.epoch,
            LogHead.seq,
            User.inbox_version,
            User.read_through_seq,
            User.read_through_at,
            func.coalesce(User.first_sign_in_at, User.created_at),
            Receipt.broadcast_id,
            *(getattr(Receipt, name) for name in ReceiptTimes._fields),
        )
        .select_from(LogHead)
        .outerjoin(User, User.id == viewer_id)
        .outerjoin(Receipt, and_(Receipt.user_id == viewer_id, is_one_of_ids))
    )


_USER_COLUMN_COUNT = 6
_ids_text = bindparam("broadcast_ids", type_=Text)
_json_id = func.json_each(_ids_text).table_valued("value").c.value
# the ids are one parameter, so that the statement is the same for any number of them
_queries = {
    "sqlite": (
        _prepare_query(Receipt.broadcast_id.in_(select(cast(_json_id, Integer)))),
        str,
    ),
    "postgresql": (
        _prepare_query(Receipt.broadcast_id == any_(cast(_ids_text, ARRAY(BigInteger)))),
        lambda ids: f"{{{','.join(map(str, ids))}}}",
    ),
}


@dataclass(slots=True)  # not frozen, which takes twice as long to make
class _Message:
    """A live broadcast as this user has it."""

    broadcast: LiveBroadcast
    receipt: ReceiptTimes
    state: InboxState

    @property
    def needs_ack(self) -> bool:
        return self.broadcast.requires_ack and not inbox_state.is_acknowledged(self.broadcast, self.receipt)

    def matches(self, filters: InboxFilters) -> bool:
        """Whether it belongs to the view and passes its filters, except for words to search for."""
        if filters.category and filters.category != self.broadcast.category:
            return False
        if filters.priority and filters.priority != self.broadcast.priority:
            return False
        match filters.view:
            case "unread":
                return self.state.is_unread_in_inbox
            case "archived":
                return self.state.is_archived
            case "snoozed":
                return self.state.is_snoozed
            case "all":
                return True
            case "ended":
                return False
        return self.state.is_in_inbox

    def to_item(self, card: Card) -> InboxItem:
        receipt, state = self.receipt, self.state
        return InboxItem(
            card,
            self.broadcast.seq,
            state.is_read,
            receipt.read_at,
            receipt.unread_at,
            receipt.acked_at,
            receipt.archived_at if state.is_archived else None,
            receipt.snoozed_until if inbox_state.is_snooze_current(self.broadcast, receipt) else None,
            state.is_back,
            receipt.acked_revision,
            has_receipt=receipt is not NO_RECEIPT,
        )


class _LiveInbox(Inbox):
    """Reads from memory. Words are searched for, and cards that are not cached are read, in the database."""

    def __init__(
        self, viewer: Viewer, live: LiveSet, user: _UserRow | None, receipts: dict[int, ReceiptTimes], now: datetime
    ):
        super().__init__(viewer, now, live.head)
        self._user = user
        self._messages = list(self._derive(live.select_for(viewer), receipts)) if user else []

    def _derive(self, broadcasts: Iterable[LiveBroadcast], receipts: dict[int, ReceiptTimes]) -> Iterator[_Message]:
        now, watermark = self._now, self._user.watermark
        for broadcast in broadcasts:
            if broadcast.expires_at is None or broadcast.expires_at > now:
                receipt = receipts.get(broadcast.id, NO_RECEIPT)
                yield _Message(broadcast, receipt, inbox_state.derive_state(broadcast, receipt, watermark, now=now))

    def count_unread(self) -> UnreadCount:
        count = sum(message.state.is_unread_in_inbox for message in self._messages)
        return UnreadCount(count, self.head.seq, self._version, self.head.epoch)

    def count_unread_filtered(self, filters: InboxFilters) -> int:
        if filters.q:
            return super().count_unread_filtered(filters)
        return sum(not message.state.is_read for message in self._select(filters))

    def count_views(self) -> ViewCounts:
        states = [message.state for message in self._messages]
        return ViewCounts(
            sum(state.is_in_inbox for state in states),
            sum(state.is_unread_in_inbox for state in states),
            sum(state.is_archived for state in states),
            sum(state.is_snoozed for state in states),
            self.head.seq,
            self._version,
        )

    def list_alerts(self, *, limit: int) -> list[Alert]:
        alerting = [
            message
            for message in self._messages
            if inbox_state.needs_alert(message.broadcast, message.receipt, message.state, self._user.watermark)
        ]
        alerting.sort(key=lambda message: _URGENCY.get(message.broadcast.priority, 2))  # stable: newest first in each
        return [_to_alert(message.broadcast) for message in alerting[:limit]]

    def list_by_ids(self, filters: InboxFilters, ids: Sequence[int]) -> list[InboxItem]:
        if filters.q:
            return super().list_by_ids(filters, ids)
        return self._choose_items([m for m in self._select(filters) if m.broadcast.id in ids], len(ids))

    def list_categories(self) -> list[str]:
        return sorted({m.broadcast.category for m in self._messages if m.broadcast.category is not None})

    def list_page(
        self, filters: InboxFilters, *, before: int | None = None, limit: int = 30, excluded_ids: Collection[int] = ()
    ) -> list[InboxItem]:
        if filters.q:
            return super().list_page(filters, before=before, limit=limit, excluded_ids=excluded_ids)
        page = [
            message
            for message in self._select(filters)
            if (before is None or message.broadcast.seq < before) and message.broadcast.id not in excluded_ids
        ]
        return self._choose_items(page, limit)

    def list_to_acknowledge(self, filters: InboxFilters, *, limit: int) -> list[InboxItem]:
        if filters.q:
            return super().list_to_acknowledge(filters, limit=limit)
        waiting = [message for message in self._select(filters) if message.needs_ack]
        waiting.sort(key=lambda m: (m.broadcast.ack_due_at is None, m.broadcast.ack_due_at or self._now))
        return self._choose_items(waiting, limit)

    def list_unread_backlog(self, *, through: int, limit: int) -> list[InboxItem]:
        unread = [
            message
            for message in self._messages
            if message.state.is_unread_in_inbox and message.broadcast.seq <= through
        ]
        return self._choose_items(unread, limit)[::-1]

    @property
    def _version(self) -> int:
        return self._user.inbox_version if self._user else 0

    def _select(self, filters: InboxFilters) -> Iterator[_Message]:
        return (message for message in self._messages if message.matches(filters))

    def _choose_items(self, messages: list[_Message], limit: int) -> list[InboxItem]:
        """The first `limit` of `messages`, with their cards. One that has ended, or is no longer for this user, since
        its receipts were read is left out, and the next takes its place.
        """
        chosen = messages[:limit]
        cards = self._load_cards([message.broadcast.key for message in chosen])
        if gone_ids := {message.broadcast.id for message in chosen} - cards.keys():
            return self._choose_items([m for m in messages if m.broadcast.id not in gone_ids], limit)
        return [message.to_item(cards[message.broadcast.id]) for message in chosen]


def _to_alert(broadcast: LiveBroadcast) -> Alert:
    moments = (broadcast.published_at, broadcast.renewed_at, broadcast.reminded_at)
    raised_at = max(moment for moment in moments if moment)
    return Alert(broadcast.id, broadcast.seq, broadcast.priority, broadcast.category, raised_at)
