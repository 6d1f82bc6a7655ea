"""Activity: receipts, the log, idempotency keys, the audit."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from broadcast.store.database import SingleRow, db
from broadcast.store.types import EncodedJson


class Receipt(db.Model):
    """What one user did with one broadcast. Seen (in the viewport), read (opened) and acknowledged are three things.

    `unread_at` is the user's own "mark unread": while set it overrides `read_at` and the watermark, which stay as they
    are, so that the sender's statistics keep the reading. Reading clears it. Snoozing sets it, so a message returns
    unread in time without further writes; the scheduler sets `returned_at` when it notifies open pages of that.

    `acked_revision` is the revision that was on screen, and `acked_hash` the `domain.revisions.hash_text` of its text.
    Both are None for an acknowledgement from before they were stored, where the log did not tell either.

    `dismissed_at` is when its alert was last dismissed, on any page; the card stays. What was archived, snoozed or
    dismissed before the broadcast was shown again does not count.
    """

    __tablename__ = "receipts"

    broadcast_id: Mapped[int] = mapped_column(ForeignKey("broadcasts.id"), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True, index=True)
    delivered_at: Mapped[datetime | None]
    first_seen_at: Mapped[datetime | None]
    read_at: Mapped[datetime | None]
    acked_at: Mapped[datetime | None]
    archived_at: Mapped[datetime | None]
    snoozed_until: Mapped[datetime | None] = mapped_column(index=True)
    snoozed_at: Mapped[datetime | None]
    unread_at: Mapped[datetime | None]
    returned_at: Mapped[datetime | None]
    acked_revision: Mapped[int | None]
    acked_hash: Mapped[str | None] = mapped_column(String(64))
    dismissed_at: Mapped[datetime | None]


class EarlierAcknowledgement(db.Model):
    """What a user had acknowledged before being asked again and doing so. `revision` 0 stands for an unknown one."""

    __tablename__ = "earlier_acknowledgements"

    broadcast_id: Mapped[int] = mapped_column(ForeignKey("broadcasts.id"), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True, index=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    hash: Mapped[str | None] = mapped_column(String(64))
    at: Mapped[datetime]


class RevisionText(db.Model):
    """The text of one revision of a broadcast that requires acknowledgement.

    Kept as long as the receipts once somebody has acknowledged it; until then, while it may still be on a screen.
    """

    __tablename__ = "revision_texts"

    broadcast_id: Mapped[int] = mapped_column(ForeignKey("broadcasts.id"), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    hash: Mapped[str] = mapped_column(String(64))
    title: Mapped[str] = mapped_column(String(200))
    content: Mapped[str] = mapped_column(Text)
    actions: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    is_acknowledged: Mapped[bool]


class UndoStep(db.Model):
    """How to undo a user's newest "mark all read", archive or snooze: the previous state of the receipts."""

    __tablename__ = "undo_steps"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(32))
    at: Mapped[datetime]
    before: Mapped[dict[str, Any]] = mapped_column(JSON)


class LogHead(SingleRow, db.Model):
    """One row: the newest seq and its epoch. Its row lock makes commit order equal seq order."""

    __tablename__ = "log_head"

    seq: Mapped[int]
    epoch: Mapped[str] = mapped_column(String(16))


class SchedulerState(SingleRow, db.Model):
    """One row, once a scheduler has run: the time of the last run."""

    __tablename__ = "scheduler_state"

    ran_at: Mapped[datetime]


class LogEvent(db.Model):
    """The log: append-only. Outbox, replay and history in one."""

    __tablename__ = "events"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    epoch: Mapped[str] = mapped_column(String(16))
    type: Mapped[str] = mapped_column(String(32))
    broadcast_id: Mapped[int | None] = mapped_column(index=True)
    audience: Mapped[Any] = mapped_column(EncodedJson)
    payload: Mapped[Any] = mapped_column(EncodedJson)
    at: Mapped[datetime]
    correlation: Mapped[str | None] = mapped_column(String(64))  # of the request that wrote it
    traceparent: Mapped[str | None] = mapped_column(String(55))  # the same for its span, if it was traced


class IdempotencyKey(db.Model):
    """A caller's promise that two requests are the same. `fingerprint` tells a retry from a reuse for another one."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    broadcast_id: Mapped[int] = mapped_column(ForeignKey("broadcasts.id"), index=True)
    created_at: Mapped[datetime]


class AuditEntry(db.Model):
    """Who did what, written in the transaction that did it (`store.audit`). Triggers refuse to change or delete a row.

    `actor_id` is no foreign key: its check would lock the user's row while the head of the chain is locked.
    """

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(index=True)
    actor_id: Mapped[int | None]
    actor_name: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(64))
    object_type: Mapped[str] = mapped_column(String(32))
    object_id: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    hash: Mapped[str] = mapped_column(String(64))

    __table_args__ = (Index("ix_audit_object_type_object_id", "object_type", "object_id"),)


class AuditHead(SingleRow, db.Model):
    """One row: the newest audit row's id and hash. Its lock serialises chaining."""

    __tablename__ = "audit_head"

    last_id: Mapped[int]
    hash: Mapped[str] = mapped_column(String(64))


class SchemaSupport(SingleRow, db.Model):
    """One row: the newest migration that code must know to work with this schema. Older code refuses to serve."""

    __tablename__ = "schema_support"

    oldest_code: Mapped[str] = mapped_column(String(64))


class SystemIdentity(SingleRow, db.Model):
    """One row. `name` is empty where Kafka was read before systems had names: their consumer group stays the same."""

    __tablename__ = "system_identity"

    name: Mapped[str] = mapped_column(String(32))
