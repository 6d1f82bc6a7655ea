"""What rules need to know about a source: how much it showed lately, cards that its events may join, its newest events.

All of it is read and written inside the transaction of a batch, once per source.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select
from sqlalchemy.orm import Session

from broadcast.domain.inbound import MAX_VALUE_BYTES, InboundRecord, RecordPosition
from broadcast.domain.lifecycle import Status
from broadcast.store import dead_letters
from broadcast.store.database import ROW_LOCK, build_insert, db
from broadcast.store.models import Broadcast
from broadcast.store.models.ingest import (
    CollapsedInboundEvent,
    InboundEventKey,
    InboundEventSample,
    InboundSender,
    InboundSourceStats,
    RuleTally,
)

_COUNTERS = ("published", "repeated", "cancelled", "rejected", "collapsed", "quarantined")
SAMPLES_PER_SOURCE = 20  # newest events kept per source
_IS_QUARANTINED = (Broadcast.status == Status.DRAFT, Broadcast.quarantine_reason.is_not(None))


@dataclass(frozen=True, slots=True)
class SourceOwner:
    """Whose broadcasts to find: an owner's, and from before there were owners, those that `sender_id` sent."""

    owner: str
    sender_id: int

    def is_owner_of_row(self) -> ColumnElement[bool]:
        is_legacy = and_(Broadcast.source_owner.is_(None), Broadcast.sender_id == self.sender_id)
        return or_(Broadcast.source_owner == self.owner, is_legacy)

    def is_owner_of(self, broadcast: Any) -> bool:
        if broadcast.source_owner is None:
            return broadcast.sender_id == self.sender_id
        return broadcast.source_owner == self.owner


def lock_sources(session: Session, sources: Collection[str], owners: Collection[str], *, at: datetime) -> None:
    """Keep other transactions from judging these sources until this one ends: two must not both see room for one."""
    for owner in sorted(owners):
        statement = build_insert(session, InboundSender).values(owner=owner, last_at=at)
        session.execute(statement.on_conflict_do_update(index_elements=["owner"], set_={"last_at": at}))
    add_counts(session, {source: {} for source in sources}, at=at)


def add_counts(session: Session, increments: Mapping[str, Mapping[str, int]], *, at: datetime) -> None:
    """Add to the counts of each source; all writers use the same order of sources, or two could deadlock."""
    for source, counts in sorted(increments.items()):
        row = dict.fromkeys(_COUNTERS, 0) | {"source": source, "last_at": at} | counts
        statement = build_insert(session, InboundSourceStats).values(row)
        added = {name: getattr(InboundSourceStats, name) + count for name, count in counts.items()}
        session.execute(statement.on_conflict_do_update(index_elements=["source"], set_=added | {"last_at": at}))


def count_shown_since(
    session: Session, scope: Literal["source", "owner"], name: str, rule: str, since: datetime
) -> int:
    """How many broadcasts of a source, or of an account or topic under any source, this rule let through."""
    is_in_scope = {"source": RuleTally.source, "owner": RuleTally.owner}[scope] == name
    query = select(func.coalesce(func.sum(RuleTally.shown), 0))
    return int(session.scalar(query.where(is_in_scope, RuleTally.rule == rule, RuleTally.at > since)))


def add_shown(
    session: Session, source: str, owner: str, rule: str, shown: int, *, at: datetime, window_seconds: int
) -> None:
    """Add to both tallies; delete what has left its window."""
    is_expired = and_(RuleTally.rule == rule, RuleTally.at <= at - timedelta(seconds=window_seconds))
    session.execute(delete(RuleTally).where(RuleTally.source == source, is_expired))
    session.execute(delete(RuleTally).where(RuleTally.owner == owner, is_expired))
    session.execute(insert(RuleTally), [{"source": source, "owner": owner, "rule": rule, "at": at, "shown": shown}])


def lock_live_broadcasts(
    session: Session, keys_by_source: Mapping[str, Collection[str]], *, now: datetime
) -> list[Broadcast]:
    """Live broadcasts with these collapse keys, of any owner, newest first; locked until the transaction ends."""
    is_live = and_(Broadcast.status == Status.ACTIVE, or_(Broadcast.expires_at.is_(None), Broadcast.expires_at > now))
    rows: list[Broadcast] = []
    for source, keys in sorted(keys_by_source.items()):
        query = select(Broadcast).where(Broadcast.source == source, Broadcast.collapse_key.in_(keys), is_live)
        rows += session.scalars(query.order_by(Broadcast.id.desc()).with_for_update(**ROW_LOCK))
    return rows


def lock_quarantined(session: Session, source: str, owner: SourceOwner, *, limit: int) -> list[Broadcast]:
    """The owner's newest quarantined drafts of this source, at most `limit`; locked until the transaction ends."""
    query = select(Broadcast).where(Broadcast.source == source, owner.is_owner_of_row(), *_IS_QUARANTINED)
    return list(session.scalars(query.order_by(Broadcast.id.desc()).limit(limit).with_for_update(**ROW_LOCK)))


def count_quarantined(session: Session, owner: SourceOwner) -> int:
    """The number of the owner's quarantined drafts, of any source."""
    return session.scalar(select(func.count()).select_from(Broadcast).where(owner.is_owner_of_row(), *_IS_QUARANTINED))


def lock_by_event_key(
    session: Session, ids_by_owner_and_source: Mapping[tuple[str, str], Collection[str]]
) -> dict[tuple[str, str, str], Broadcast]:
    """The broadcasts of stored event keys, by (owner, source, source id); locked."""
    return {
        (owner, source, source_id): row
        for (owner, source), ids in sorted(ids_by_owner_and_source.items())
        for source_id, row in _lock_rows(session, InboundEventKey, source, ids, InboundEventKey.owner == owner)
    }


def lock_collapsed_cards(
    session: Session, ids_by_source: Mapping[str, Collection[str]]
) -> dict[tuple[str, str], Broadcast]:
    """The cards that events were collapsed into before keys had owners, by (source, source id); locked."""
    return {
        (source, source_id): row
        for source, ids in sorted(ids_by_source.items())
        for source_id, row in _lock_rows(session, CollapsedInboundEvent, source, ids)
    }


def _lock_rows(
    session: Session,
    table: type[InboundEventKey | CollapsedInboundEvent],
    source: str,
    ids: Collection[str],
    *conditions: ColumnElement[bool],
) -> Iterable[tuple[str, Broadcast]]:
    query = select(table.source_id, Broadcast).join(Broadcast, Broadcast.id == table.broadcast_id)
    query = query.where(table.source == source, table.source_id.in_(ids), *conditions).order_by(Broadcast.id)
    return session.execute(query.with_for_update(**ROW_LOCK, of=Broadcast)).all()


def add_event_keys(session: Session, event_keys: Iterable[tuple[str, str, str, int]]) -> None:
    """Store the keys of events that their broadcasts do not carry: (owner, source, source id, broadcast id)."""
    if rows := [
        dict(zip(("owner", "source", "source_id", "broadcast_id"), event_key, strict=True)) for event_key in event_keys
    ]:
        session.execute(insert(InboundEventKey), rows)


def save_samples(
    session: Session, events_by_source: Mapping[str, Sequence[tuple[InboundRecord, str | None]]], *, at: datetime
) -> None:
    """Store these events with their owners; keep the newest SAMPLES_PER_SOURCE of each source and delete the rest."""
    for source, events in sorted(events_by_source.items()):
        rows = [_to_sample_row(source, *event, at) for event in events[-SAMPLES_PER_SOURCE:]]
        session.execute(insert(InboundEventSample), rows)
        ids = select(InboundEventSample.id).where(InboundEventSample.source == source)
        oldest_kept_id = ids.order_by(InboundEventSample.id.desc()).offset(SAMPLES_PER_SOURCE - 1).limit(1)
        is_old = InboundEventSample.id < oldest_kept_id.scalar_subquery()
        session.execute(delete(InboundEventSample).where(InboundEventSample.source == source, is_old))


def _to_sample_row(source: str, record: InboundRecord, owner: str | None, at: datetime) -> dict:
    position = record.position
    read_headers = [
        header
        for header in record.headers
        if header[0].lower() == "content-type" or header[0][:3].lower() in ("ce_", "ce-")
    ]
    return {
        "source": source,
        "topic": position and position.topic,
        "partition": position and position.partition,
        "offset": position and position.offset,
        "key": record.key,
        "value": record.value and record.value[:MAX_VALUE_BYTES],
        "headers": dead_letters.encode_headers(read_headers),  # only those: a webhook's others hold its token
        "owner": owner,
        "at": at,
    }


def list_sampled_sources() -> list[str]:
    return list(db.session.scalars(select(InboundEventSample.source).distinct().order_by(InboundEventSample.source)))


def iterate_samples(sources: Collection[str]) -> Iterator[InboundEventSample]:
    """The newest events of these sources, newest first."""
    query = select(InboundEventSample).where(InboundEventSample.source.in_(sources))
    query = query.order_by(InboundEventSample.id.desc())
    yield from db.session.scalars(query.execution_options(yield_per=SAMPLES_PER_SOURCE))


def to_record(sample: InboundEventSample) -> InboundRecord:
    """The event as it arrived, without the headers that nobody reads."""
    position = RecordPosition(sample.topic, sample.partition, sample.offset) if sample.topic is not None else None
    return InboundRecord(sample.value, sample.key, dead_letters.decode_headers(sample.headers), position)


def list_source_stats(sources: Collection[str]) -> list[InboundSourceStats]:
    """Outcome counts of these sources, the one that sent last first."""
    query = select(InboundSourceStats).where(InboundSourceStats.source.in_(sources))
    return list(db.session.scalars(query.order_by(InboundSourceStats.last_at.desc())))
