"""E-mail besides the outbox: how fast it may go, digests, and corrections after a recall."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from broadcast.store.database import SingleRow, db

_IS_UNFINISHED = text("finished_at IS NULL")


class EmailPace(SingleRow, db.Model):
    """When the next mail may be sent under EMAIL_PER_MINUTE. All workers of all nodes share the row."""

    __tablename__ = "email_pace"

    next_at: Mapped[datetime | None]


class Digest(db.Model):
    """The digest that a user gets next. A user who wants none has no row.

    `period_at` is the hour or the time of day it is for, and a part of its Message-ID. A worker claims a row by moving
    `due_at` to the end of its lease, and is recognised by `attempts` when it moves the row on to the next period.
    """

    __tablename__ = "digests"
    __table_args__ = (Index("ix_digests_due_at", "due_at"),)

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    period_at: Mapped[datetime]
    due_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")


class RecallCorrection(db.Model):
    """A recalled broadcast of which mails may have been sent: each of these people gets a correction.

    `planned_at` is when those who had one by then were planned, `finished_at` when those were whose mail was on its way.
    """

    __tablename__ = "recall_corrections"
    __table_args__ = (
        Index(
            "ix_recall_corrections_unfinished",
            "recalled_at",
            sqlite_where=_IS_UNFINISHED,
            postgresql_where=_IS_UNFINISHED,
        ),
    )

    broadcast_id: Mapped[int] = mapped_column(
        ForeignKey("broadcasts.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    recalled_at: Mapped[datetime]
    planned_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
