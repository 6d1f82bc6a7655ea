"""The tables of inbound events: dead letters, statistics per source, and the state of the rules.

A dead letter is never deleted: its Kafka position tells a redelivered record from a new one. Purging removes its
contents.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from broadcast.domain.inbound import format_offsets
from broadcast.store.database import db


class DeadLetterStatus(StrEnum):
    WAITING = "WAITING"
    REDRIVEN = "REDRIVEN"
    PURGED = "PURGED"


class DeadLetter(db.Model):
    """A rejected record as it arrived; `size` is of the whole value, `value` at most 64 KiB of it."""

    __tablename__ = "dead_letters"
    __table_args__ = (
        CheckConstraint("status IN ('WAITING','REDRIVEN','PURGED')", name="status"),
        UniqueConstraint("topic", "partition", "offset"),
        Index("ix_dead_letters_status_id", "status", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str] = mapped_column(String(16), default=DeadLetterStatus.WAITING.value)
    topic: Mapped[str] = mapped_column(String(249))
    partition: Mapped[int]
    offset: Mapped[int]
    last_offset: Mapped[int | None]  # of a whole batch that could not be read
    timestamp_ms: Mapped[int | None]
    key: Mapped[bytes | None] = mapped_column(LargeBinary)
    value: Mapped[bytes | None] = mapped_column(LargeBinary)
    size: Mapped[int]
    headers: Mapped[list[list[str]]] = mapped_column(JSON, default=list)  # name and value in base64, repeats kept
    code: Mapped[str] = mapped_column(String(40))
    reason: Mapped[str] = mapped_column(String(2000))
    source: Mapped[str | None] = mapped_column(String(200))
    source_id: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime]
    tries: Mapped[int] = mapped_column(default=0)
    tried_at: Mapped[datetime | None]
    broadcast_id: Mapped[int | None]  # created by a redrive
    forwarded_at: Mapped[datetime | None]  # when it was written to the dead letter topic, if there is one

    @property
    def position(self) -> str:
        return f"{self.topic}:{self.partition}:{format_offsets(self.offset, self.last_offset)}"


class InboundSourceStats(db.Model):
    """Outcome counts of one source's events, updated in the same transactions."""

    __tablename__ = "event_sources"

    source: Mapped[str] = mapped_column(String(260), primary_key=True)
    published: Mapped[int] = mapped_column(default=0)
    repeated: Mapped[int] = mapped_column(default=0)
    cancelled: Mapped[int] = mapped_column(default=0)
    rejected: Mapped[int] = mapped_column(default=0)
    collapsed: Mapped[int] = mapped_column(default=0, server_default="0")
    quarantined: Mapped[int] = mapped_column(default=0, server_default="0")
    last_at: Mapped[datetime]


class CollapsedInboundEvent(db.Model):
    """Like InboundEventKey, from before keys had owners: read, but no longer written."""

    __tablename__ = "collapsed_events"

    source: Mapped[str] = mapped_column(String(200), primary_key=True)
    source_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    broadcast_id: Mapped[int] = mapped_column(ForeignKey("broadcasts.id"), index=True)


class InboundEventKey(db.Model):
    """The key of an event that its broadcast cannot carry: it was collapsed, or another owner uses the same id."""

    __tablename__ = "event_names"

    owner: Mapped[str] = mapped_column(String(260), primary_key=True)
    source: Mapped[str] = mapped_column(String(200), primary_key=True)
    source_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    broadcast_id: Mapped[int] = mapped_column(ForeignKey("broadcasts.id"), index=True)


class InboundSender(db.Model):
    """An account or topic that sent events; its row is locked while its events are judged."""

    __tablename__ = "event_senders"

    owner: Mapped[str] = mapped_column(String(260), primary_key=True)
    last_at: Mapped[datetime]


class RuleTally(db.Model):
    """How many broadcasts a rule let through for one source of one owner at one time.

    A window never has more rows than the rule allows.
    """

    __tablename__ = "rule_tallies"
    __table_args__ = (
        Index("ix_rule_tallies_source_rule_at", "source", "rule", "at"),
        Index("ix_rule_tallies_owner_rule_at", "owner", "rule", "at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(String(200))
    owner: Mapped[str | None] = mapped_column(String(260))
    rule: Mapped[str] = mapped_column(String(16))
    at: Mapped[datetime]
    shown: Mapped[int]


class InboundEventSample(db.Model):
    """One of the newest events of a source, as it arrived, for dry runs of a rule. Only the headers that are read."""

    __tablename__ = "event_samples"
    __table_args__ = (Index("ix_event_samples_source_id", "source", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(String(200))
    topic: Mapped[str | None] = mapped_column(String(249))
    partition: Mapped[int | None]
    offset: Mapped[int | None]
    key: Mapped[bytes | None] = mapped_column(LargeBinary)
    value: Mapped[bytes | None] = mapped_column(LargeBinary)
    headers: Mapped[list[list[str]]] = mapped_column(JSON, default=list)  # as in a dead letter
    owner: Mapped[str | None] = mapped_column(String(260))
    at: Mapped[datetime]
