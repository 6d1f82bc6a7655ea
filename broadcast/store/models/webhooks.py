"""Webhooks: the endpoints, what happened that is in no log, the deliveries and the attempts to make them."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from broadcast.store.database import db
from broadcast.store.types import partial_index


class WebhookEndpoint(db.Model):
    """An address that gets the events of some types. Its deliveries are made up to `planned_seq` of the log.

    While `previous_secret_until` lies ahead, requests are signed with the previous secret, too. `gone_at` is when the
    server answered 410, which ends everything; `failing_since` is when attempts began to fail, and `problem` why.
    """

    __tablename__ = "webhook_endpoints"

    id: Mapped[int] = mapped_column(primary_key=True)
    url: Mapped[str] = mapped_column(String(2000))
    event_types: Mapped[list[str]] = mapped_column(JSON)
    secret: Mapped[str] = mapped_column(String(80))
    previous_secret: Mapped[str | None] = mapped_column(String(80))
    previous_secret_until: Mapped[datetime | None]
    planned_seq: Mapped[int]
    created_at: Mapped[datetime]
    paused_at: Mapped[datetime | None]
    gone_at: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(String(300))


class WebhookEvent(db.Model):
    """What happened to a broadcast and is in no log, such as an acknowledgement. Written in the transaction that did it,
    deleted in the one that makes the deliveries.
    """

    __tablename__ = "webhook_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(String(32))
    broadcast_id: Mapped[int] = mapped_column(ForeignKey("broadcasts.id", ondelete="CASCADE"), index=True)
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    at: Mapped[datetime]


class WebhookDelivery(db.Model):
    """One event for one endpoint, claimed and finished as a `Delivery` of the outbox is. `body` is what is sent."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('WAITING','SENT','FAILED','CANCELLED')", name="state"),
        UniqueConstraint("endpoint_id", "message_id"),
        Index("ix_webhook_deliveries_endpoint_id_id", "endpoint_id", "id"),
        Index("ix_webhook_deliveries_ended_at", "ended_at"),
        partial_index("ix_webhook_deliveries_waiting", "endpoint_id", "due_at", "id", where="state = 'WAITING'"),
        # whether an earlier event of the broadcast waits
        partial_index(
            "ix_webhook_deliveries_waiting_broadcast", "endpoint_id", "broadcast_id", "id", where="state = 'WAITING'"
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    endpoint_id: Mapped[int] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    broadcast_id: Mapped[int] = mapped_column(ForeignKey("broadcasts.id", ondelete="CASCADE"), index=True)
    type: Mapped[str] = mapped_column(String(32))
    message_id: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    due_at: Mapped[datetime]
    attempts: Mapped[int]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(String(300))


class WebhookAttempt(db.Model):
    """One request of a delivery. `status` is None without an answer; `answer` is then why, else how its body begins."""

    __tablename__ = "webhook_attempts"

    id: Mapped[int] = mapped_column(primary_key=True)
    delivery_id: Mapped[int] = mapped_column(ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime]
    status: Mapped[int | None]
    duration_ms: Mapped[int]
    answer: Mapped[str] = mapped_column(String(300))
