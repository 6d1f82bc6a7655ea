"""What one user did with one live broadcast, and what follows for their inbox: read, archived, snoozed, alerting.

`store.inbox` repeats these rules in SQL for inboxes that are too large to hold in memory; a test compares the two.
What was done before a broadcast was shown again (`renewed_at`) no longer counts.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from broadcast.domain.message import Priority
from broadcast.domain.revisions import is_acknowledgement_valid

_ALERTING_PRIORITIES = (Priority.HIGH, Priority.URGENT)


class ReceiptTimes(NamedTuple):
    """A stored receipt, as far as it decides where a message stands."""

    read_at: datetime | None = None
    unread_at: datetime | None = None
    acked_at: datetime | None = None
    acked_revision: int | None = None
    archived_at: datetime | None = None
    snoozed_at: datetime | None = None
    snoozed_until: datetime | None = None
    returned_at: datetime | None = None
    first_seen_at: datetime | None = None
    dismissed_at: datetime | None = None


NO_RECEIPT = ReceiptTimes()


class Watermark(NamedTuple):
    """Everything up to `seq` was marked as read at `at`. `joined_at` is when the user first signed in."""

    seq: int
    at: datetime | None
    joined_at: datetime


class LiveMessage(Protocol):
    """What the rules need to know of a broadcast."""

    seq: int
    priority: str
    requires_ack: bool
    ack_revision: int
    published_at: datetime | None
    renewed_at: datetime | None
    reminded_at: datetime | None


@dataclass(frozen=True, slots=True)
class InboxState:
    """Where a message stands in one user's inbox: in it, archived or snoozed, and never two of these."""

    is_read: bool
    is_archived: bool
    is_snoozed: bool
    is_back: bool

    @property
    def is_in_inbox(self) -> bool:
        return not (self.is_archived or self.is_snoozed)

    @property
    def is_unread_in_inbox(self) -> bool:
        return not (self.is_read or self.is_archived or self.is_snoozed)


def derive_state(message: LiveMessage, receipt: ReceiptTimes, watermark: Watermark, *, now: datetime) -> InboxState:
    """The state at `now`."""
    renewed_at = message.renewed_at
    if receipt is NO_RECEIPT and renewed_at is None:  # nearly all, when many are live
        return _READ if message.seq <= watermark.seq else _UNREAD
    is_archived = is_since(receipt.archived_at, renewed_at)
    has_slept = receipt.snoozed_until is not None and is_snooze_current(message, receipt)
    is_asleep = has_slept and receipt.snoozed_until > now
    is_marked_read = message.seq <= watermark.seq and (renewed_at is None or is_since(watermark.at, renewed_at))
    is_read = receipt.unread_at is None and (is_marked_read or is_since(receipt.read_at, renewed_at))
    is_back = (
        receipt.unread_at is not None
        and not (is_archived or is_asleep)
        and (has_slept or is_since(receipt.returned_at, renewed_at))
    )
    return InboxState(is_read, is_archived, is_asleep and not is_archived, is_back)


_READ = InboxState(is_read=True, is_archived=False, is_snoozed=False, is_back=False)
_UNREAD = InboxState(is_read=False, is_archived=False, is_snoozed=False, is_back=False)


def is_since(moment: datetime | None, renewed_at: datetime | None) -> bool:
    """Whether something was done, and not before the broadcast was last shown again."""
    return moment is not None and (renewed_at is None or moment >= renewed_at)


def is_snooze_current(message: LiveMessage, receipt: ReceiptTimes) -> bool:
    """Whether a snooze was set since the broadcast was last shown again. Old ones do not say when."""
    return message.renewed_at is None or is_since(receipt.snoozed_at, message.renewed_at)


def is_acknowledged(message: LiveMessage, receipt: ReceiptTimes) -> bool:
    """Whether an acknowledgement stands."""
    return receipt.acked_at is not None and is_acknowledgement_valid(receipt.acked_revision, message.ack_revision)


def needs_alert(message: LiveMessage, receipt: ReceiptTimes, state: InboxState, watermark: Watermark) -> bool:
    """Whether a page that is opened alerts the user of it: see `store.inbox.Inbox.list_alerts`."""
    if message.priority == Priority.LOW or not state.is_in_inbox:
        return False
    is_urgent = message.priority == Priority.URGENT
    is_to_acknowledge = message.requires_ack and not is_acknowledged(message, receipt)
    if is_urgent and is_to_acknowledge:
        return True
    if not (message.priority in _ALERTING_PRIORITIES or message.renewed_at or message.reminded_at):
        return False
    if state.is_read and not (is_to_acknowledge and message.reminded_at):
        return False
    moments = (message.published_at, message.renewed_at, message.reminded_at)
    is_new = is_urgent or is_to_acknowledge or any(moment and moment >= watermark.joined_at for moment in moments)
    return is_new and not (_was_alerted(message, receipt.first_seen_at) or _was_alerted(message, receipt.dismissed_at))


def _was_alerted(message: LiveMessage, moment: datetime | None) -> bool:
    return is_since(moment, message.renewed_at) and is_since(moment, message.reminded_at)
