"""What users do with messages addressed to them: read, archive, snooze, acknowledge, and undo.

Each action locks the user, checks the messages as they are now, writes, and increments the user's inbox version, in one
transaction; then it notifies the user's other tabs and devices. An action without any change does none of this. Each
raises NotFound when none of the messages is addressed to this user.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from broadcast.actions import notify, webhooks
from broadcast.base.errors import AcknowledgedTextChanged, Conflict, Invalid, NotFound
from broadcast.domain.actor import Actor
from broadcast.domain.message import Priority
from broadcast.domain.revisions import is_acknowledgement_valid
from broadcast.store import acknowledged_revisions, log, receipts
from broadcast.store.inbox import EndedInbox, Inbox, InboxFilters, InboxItem
from broadcast.store.receipts import ReceiptTimestamp
from broadcast.store.transactions import write_transaction

UNDO_WINDOW = timedelta(seconds=60)  # pages offer it for 8 s; a form without JavaScript needs longer
MAX_SNOOZE = timedelta(days=366)
_MAX_UNDO_ROWS = 1000  # rows that one undo step stores
_WAKE_BATCH_SIZE = 500  # rows per transaction


@dataclass(frozen=True, slots=True)
class ReceiptResult:
    """What an action changed. `version` is the new inbox version, 0 without a change; `undo_key` is the key for `undo`.

    `refused_ids` are those for which the action was refused; `refusal_reason` is the reason of the first.
    """

    kind: str
    ids: list[int]
    version: int = 0
    undo_key: str | None = None
    refused_ids: tuple[int, ...] = ()
    refusal_reason: str = ""


def mark_read(ids: Sequence[int], *, by: Actor, now: datetime) -> ReceiptResult:
    """Mark messages read; idempotent, the first time of reading stays."""

    def write_receipts(session: Session, items: list[InboxItem]) -> None:
        _set_timestamp(session, by, [item.card.id for item in items], "read_at", now)
        receipts.upsert(session, by.user_id, [i.card.id for i in items if i.unread_at], unread_at=None)

    return _apply_action("read", ids, lambda item: not item.is_read, write_receipts, by, now)


def mark_unread(ids: Sequence[int], *, by: Actor, now: datetime) -> ReceiptResult:
    """Mark messages unread for this user only: the sender's statistics keep the reading."""
    return _write_columns("unread", ids, lambda item: item.is_read, by, now, unread_at=now)


def acknowledge(
    ids: Sequence[int], *, by: Actor, now: datetime, seen_revisions: Mapping[int, int] | None = None
) -> ReceiptResult:
    """Acknowledge messages ("I have read and understood"); permanent, and marks them read too.

    `seen_revisions` maps ids to the revisions that were on screen; the current one is assumed for others. An older
    revision is acknowledged as such if its text is kept and may still be acknowledged, and refused otherwise. Raises
    Conflict, AcknowledgedTextChanged.
    """
    revision_by_id = seen_revisions or {}
    stored_hashes = acknowledged_revisions.get_hashes(revision_by_id.items())

    def write_receipts(session: Session, items: list[InboxItem]) -> None:
        acknowledgements = []
        for card in (item.card for item in items):
            revision = revision_by_id.get(card.id, card.revision)
            if revision == card.revision:
                acknowledged_revisions.save_text(session, card, is_acknowledged=True)
                acknowledgements.append((card.id, revision, acknowledged_revisions.hash_card_text(card)))
            else:
                acknowledged_revisions.mark_acknowledged(session, card.id, revision)
                acknowledgements.append((card.id, revision, stored_hashes[card.id, revision]))
        acknowledged_revisions.save_acknowledgements(session, by.user_id, acknowledgements, at=now)
        webhooks.record_acknowledgements(
            session, by, [(id_, revision) for id_, revision, _ in acknowledgements], at=now
        )
        _set_timestamp(session, by, [item.card.id for item in items], "read_at", now)
        receipts.upsert(session, by.user_id, [item.card.id for item in items], unread_at=None)

    def find_refusal(item: InboxItem) -> Conflict | None:
        card = item.card
        if not card.requires_ack:
            return Conflict("This message does not ask for an acknowledgement.")
        revision = revision_by_id.get(card.id, card.revision)
        may_acknowledge_old = (
            is_acknowledgement_valid(revision, card.ack_revision)
            and (card.id, revision) in stored_hashes
            and revision < card.revision
        )
        if revision == card.revision or may_acknowledge_old or not item.needs_ack:
            return None
        return AcknowledgedTextChanged()

    return _apply_action("acknowledged", ids, lambda item: item.needs_ack, write_receipts, by, now, find_refusal)


def archive(ids: Sequence[int], *, by: Actor, now: datetime) -> ReceiptResult:
    """Archive messages. Raises Conflict for those that must be acknowledged first."""

    def find_refusal(item: InboxItem) -> Conflict | None:
        return Conflict("Acknowledge this message before you archive it.") if item.needs_ack else None

    return _write_columns(
        "archived", ids, lambda item: not item.archived_at, by, now, find_refusal, is_undoable=True, archived_at=now
    )


def unarchive(ids: Sequence[int], *, by: Actor, now: datetime) -> ReceiptResult:
    """Move messages back to the inbox, from the archive or from snooze."""
    columns = {"archived_at": None, "snoozed_until": None}
    return _write_columns("unarchived", ids, lambda i: i.archived_at or _is_snoozed(i, now), by, now, **columns)


def snooze(ids: Sequence[int], *, until: datetime, by: Actor, now: datetime) -> ReceiptResult:
    """Hide messages until that time, when they return as unread.

    Raises Invalid for a time in the past or more than a year ahead, Conflict for a message that ends before that time
    or must be acknowledged at once or before it.
    """
    if not now < until <= now + MAX_SNOOZE:
        raise Invalid({"until": "Choose a time in the future, within a year."})

    def find_refusal(item: InboxItem) -> Conflict | None:
        if item.card.expires_at and item.card.expires_at <= until:
            return Conflict(
                "This message ends before that time and would not return. Choose an earlier time, or archive it."
            )
        if not item.needs_ack:
            return None
        if item.card.priority == Priority.URGENT:
            return Conflict("This message is urgent. Acknowledge it instead of snoozing it.")
        if item.card.ack_due_at and item.card.ack_due_at < until:
            return Conflict("This message must be acknowledged before that time.")
        return None

    columns = {"snoozed_until": until, "snoozed_at": now, "unread_at": now, "archived_at": None, "returned_at": None}
    return _write_columns(
        "snoozed", ids, lambda item: item.snoozed_until != until, by, now, find_refusal, is_undoable=True, **columns
    )


def dismiss(ids: Sequence[int], *, by: Actor, now: datetime) -> ReceiptResult:
    """Dismiss the alerts of these messages everywhere, until they are shown again or reminded of; they count as seen."""
    return _write_columns("dismissed", ids, lambda item: True, by, now, reached="first_seen_at", dismissed_at=now)


def mark_all_read(filters: InboxFilters, *, through: int, by: Actor, now: datetime) -> ReceiptResult:
    """Mark read what `filters` show up to seq `through`, so that what arrived meanwhile stays unread.

    For the whole inbox this is one watermark; only messages without a receipt get a row, so that the sender's
    statistics count this user.
    """
    with write_transaction() as session:
        receipts.lock_user(session, by.user_id)
        through = min(through, log.get_head().seq)
        unread_ids = Inbox(by.viewer, now).list_unread_ids(filters, through=through)
        if not unread_ids:
            return ReceiptResult("read", [])
        manually_unread_ids = receipts.filter_marked_unread(session, by.user_id, unread_ids)
        if filters.is_narrowed or filters.view not in ("inbox", "unread"):
            undo_state = receipts.snapshot(session, by.user_id, unread_ids, ["read_at", "unread_at"])
            _set_timestamp(session, by, unread_ids, "read_at", now)
        else:
            undo_state = receipts.snapshot(session, by.user_id, manually_unread_ids, ["unread_at"])
            undo_state["watermark"] = [receipts.get_watermark(session, by.user_id), through]
            without_receipt_ids = receipts.filter_without_receipt(session, by.user_id, unread_ids)
            _set_timestamp(session, by, without_receipt_ids, "delivered_at", now)
            receipts.mark_archived_unread(session, by.user_id, through=through, at=now)
            receipts.advance_watermark(session, by.user_id, through=through, at=now)
        receipts.upsert(session, by.user_id, manually_unread_ids, unread_at=None)
        undo_key = _save_undo_step(session, by, undo_state, now)
        version = receipts.increment_inbox_version(session, by.user_id, at=now)
    notify.notify_receipt(by.user_id, "read", unread_ids, version)
    return ReceiptResult("read", unread_ids, version, undo_key)


def undo(undo_key: str, *, by: Actor, now: datetime) -> ReceiptResult:
    """Undo the newest action. Raises Conflict when it is too late or another action followed."""
    with write_transaction() as session:
        receipts.lock_user(session, by.user_id)
        step = receipts.get_undo_step(session, by.user_id)
        if step is None or not secrets.compare_digest(step.key, undo_key) or now > step.at + UNDO_WINDOW:
            raise Conflict("It is too late to undo that.")
        if "watermark" in step.before:
            previous_watermark, through = step.before["watermark"]
            receipts.revert_watermark(session, by.user_id, through=through, to=previous_watermark)
        ids = receipts.restore(session, by.user_id, step.before)
        session.delete(step)
        ids = [] if "watermark" in step.before else ids  # not only those: the watermark moved
        version = receipts.increment_inbox_version(session, by.user_id, at=now)
    notify.notify_receipt(by.user_id, "undone", ids, version)
    return ReceiptResult("undone", ids, version)


def notify_ended_snoozes(now: datetime) -> None:
    """Notify open pages of messages whose snooze is over, each once across all workers. (They are back already.)"""
    with write_transaction() as session:
        returned_ids: dict[int, list[int]] = {}
        for user_id, broadcast_id in receipts.return_snoozed(session, now=now, limit=_WAKE_BATCH_SIZE):
            returned_ids.setdefault(user_id, []).append(broadcast_id)
        versions = {
            user_id: receipts.increment_inbox_version(session, user_id, at=now) for user_id in sorted(returned_ids)
        }
    for user_id, ids in returned_ids.items():
        notify.notify_receipt(user_id, "returned", ids, versions[user_id])


def _write_columns(
    kind: str,
    ids: Sequence[int],
    would_change: Callable[[InboxItem], Any],
    by: Actor,
    now: datetime,
    find_refusal: Callable[[InboxItem], Conflict | None] | None = None,
    *,
    is_undoable: bool = False,
    reached: ReceiptTimestamp = "delivered_at",
    **columns: Any,
) -> ReceiptResult:
    """An action that writes these columns and how far the message got: whoever acts on it has received it."""

    def write_receipts(session: Session, items: list[InboxItem]) -> None:
        changed_ids = [item.card.id for item in items]
        _set_timestamp(session, by, changed_ids, reached, now)
        receipts.upsert(session, by.user_id, changed_ids, **columns)

    undo_columns = [*columns] if is_undoable else []
    return _apply_action(kind, ids, would_change, write_receipts, by, now, find_refusal, undo_columns)


def _apply_action(
    kind: str,
    ids: Sequence[int],
    would_change: Callable[[InboxItem], Any],
    write_receipts: Callable[[Session, list[InboxItem]], None],
    by: Actor,
    now: datetime,
    find_refusal: Callable[[InboxItem], Conflict | None] | None = None,
    undo_columns: Sequence[str] = (),
) -> ReceiptResult:
    """Apply an action to those of `ids` that are addressed to this user and that it would change.

    `find_refusal` returns the error for a message that must be refused; the others are still processed. `undo_columns`
    names the columns that undoing restores.
    """
    undo_key = None
    with write_transaction() as session:
        receipts.lock_user(session, by.user_id)
        items = Inbox(by.viewer, now).list_by_ids(InboxFilters("all"), ids)
        if not items and EndedInbox(by.viewer, now).list_by_ids(InboxFilters("ended"), ids):
            raise Conflict("This message has ended. You can only read it.")
        if not items:
            raise NotFound()
        refusals = {item.card.id: refusal for item in items if (refusal := find_refusal and find_refusal(item))}
        if len(refusals) == len(items):
            raise refusals[items[0].card.id]
        refused_ids, refusal_reason = tuple(refusals), str(next(iter(refusals.values()), ""))
        changed_items = [item for item in items if item.card.id not in refusals and would_change(item)]
        if not changed_items:
            return ReceiptResult(kind, [], refused_ids=refused_ids, refusal_reason=refusal_reason)
        changed_ids = [item.card.id for item in changed_items]
        if undo_columns:
            undo_state = receipts.snapshot(session, by.user_id, changed_ids, undo_columns)
            undo_key = _save_undo_step(session, by, undo_state, now)
        write_receipts(session, changed_items)
        version = receipts.increment_inbox_version(session, by.user_id, at=now)
    notify.notify_receipt(by.user_id, kind, changed_ids, version)
    return ReceiptResult(kind, changed_ids, version, undo_key, refused_ids, refusal_reason)


def _save_undo_step(session: Session, by: Actor, undo_state: dict[str, Any], now: datetime) -> str | None:
    """Return the key of the undo step, None when it touched too many messages to be stored."""
    if len(undo_state["rows"]) > _MAX_UNDO_ROWS:
        return None
    undo_key = secrets.token_hex(8)
    receipts.save_undo_step(session, by.user_id, key=undo_key, at=now, before=undo_state)
    return undo_key


def _set_timestamp(session: Session, by: Actor, ids: Sequence[int], column: ReceiptTimestamp, now: datetime) -> None:
    receipts.set_timestamp(session, ((broadcast_id, by.user_id) for broadcast_id in ids), column, at=now)


def _is_snoozed(item: InboxItem, now: datetime) -> bool:
    return item.snoozed_until is not None and item.snoozed_until > now
