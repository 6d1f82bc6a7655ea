"""Channels that reach people without an open page: addresses, the outbox, and the steps of escalation."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from broadcast.store.database import SingleRow, db

_IS_WAITING = text("state = 'WAITING'")


class ChannelSettings(db.Model):
    """One row for each channel that was paused or had a problem.

    `problem` says why the server takes nothing at present, since `failing_since`.
    """

    __tablename__ = "channel_settings"

    channel: Mapped[str] = mapped_column(String(16), primary_key=True)
    paused_at: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(String(300))


class EscalationPolicy(db.Model):
    """A named list of steps (`domain.escalation`). `default_for` are priorities; each is in one policy at most."""

    __tablename__ = "escalation_policies"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    steps: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    default_for: Mapped[list[str]] = mapped_column(JSON)


class EscalationProgress(SingleRow, db.Model):
    """How far the log has been read for the steps of new broadcasts."""

    __tablename__ = "escalation_progress"

    planned_seq: Mapped[int]


class EscalationStep(db.Model):
    """One step of the ladder of a broadcast: at `due_at`, `channel` reaches who has not done by then what it `awaits`, or
    `role` is told how many have not.

    Showing a broadcast again starts another ladder, with its own `started_at`; so does a reminder, which
    `skips_online`: who has a page open gets it there. `revision` is that of its deliveries. They are planned in batches
    by user id, each in one transaction with `planned_user_id`, the last one of the batch, and `people`, how many it is.
    """

    __tablename__ = "escalation_steps"

    id: Mapped[int] = mapped_column(primary_key=True)
    broadcast_id: Mapped[int] = mapped_column(ForeignKey("broadcasts.id", ondelete="CASCADE"))
    started_at: Mapped[datetime]
    position: Mapped[int]
    channel: Mapped[str | None] = mapped_column(String(16))
    role: Mapped[str | None] = mapped_column(String(64))
    awaits: Mapped[str] = mapped_column(String(16))
    skips_online: Mapped[bool] = mapped_column(default=False, server_default=false())
    revision: Mapped[int]
    due_at: Mapped[datetime]
    planned_user_id: Mapped[int] = mapped_column(default=0, server_default="0")
    planned_at: Mapped[datetime | None]
    people: Mapped[int] = mapped_column(default=0, server_default="0")

    __table_args__ = (
        UniqueConstraint("broadcast_id", "started_at", "position"),
        Index(
            "ix_escalation_steps_due_at",
            "due_at",
            sqlite_where=text("planned_at IS NULL"),
            postgresql_where=text("planned_at IS NULL"),
        ),
    )


class Delivery(db.Model):
    """The outbox: one broadcast to one user by one channel, because of a step (0: without one).

    A worker claims a WAITING row by moving `due_at` to the end of its lease, and is recognised by `attempts` when it
    records the outcome: SENT, FAILED or CANCELLED, with the reason. `message_id` is the same at each attempt, so that a
    receiver can discard a repetition.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('WAITING','SENT','FAILED','CANCELLED')", name="state"),
        UniqueConstraint("broadcast_id", "revision", "user_id", "channel", "step_id"),
        Index("ix_deliveries_waiting", "channel", "due_at", sqlite_where=_IS_WAITING, postgresql_where=_IS_WAITING),
        Index("ix_deliveries_channel_state_ended_at", "channel", "state", "ended_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    broadcast_id: Mapped[int] = mapped_column(ForeignKey("broadcasts.id", ondelete="CASCADE"))
    revision: Mapped[int]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    channel: Mapped[str] = mapped_column(String(16))
    step_id: Mapped[int] = mapped_column(default=0, server_default="0")
    message_id: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    due_at: Mapped[datetime]
    attempts: Mapped[int]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(String(300))


class EmailAddress(db.Model):
    """Where a user gets e-mail: a verified address, one that waits for its confirmation, or both.

    An address is verified by the person, by an administrator's word, or by the identity provider (`is_from_provider`).
    `failing_since` is set when the
    server of the address refuses it for good; nothing is sent there until it is verified again.
    """

    __tablename__ = "email_addresses"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    address: Mapped[str | None] = mapped_column(String(254))
    verified_at: Mapped[datetime | None]
    is_from_provider: Mapped[bool] = mapped_column(default=False)
    pending_address: Mapped[str | None] = mapped_column(String(254))
    pending_since: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    problem: Mapped[str | None] = mapped_column(String(300))


class PushSubscription(db.Model):
    """A browser in which a user has turned push messages on. `p256dh` and `auth` are its keys, `agent` its User-Agent.

    It is used as long as the session that registered it last has not been ended: by signing out, by somebody else, or
    with the account.
    """

    __tablename__ = "push_subscriptions"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), index=True)
    endpoint: Mapped[str] = mapped_column(String(1000), unique=True)
    p256dh: Mapped[str] = mapped_column(String(88))
    auth: Mapped[str] = mapped_column(String(24))
    agent: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
