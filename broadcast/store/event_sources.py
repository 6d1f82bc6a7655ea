"""What rules need to know of a source: how much it showed lately, the cards that its events may join, its newest events.

All of it is asked and written inside the transaction of a batch, once for each source that is in it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select
from sqlalchemy.orm import Session

from broadcast.domain.inbound import VALUE_BYTES, Place, Record
from broadcast.domain.lifecycle import Status
from broadcast.store import dead_letters
from broadcast.store.database import ROW_LOCK, db
from broadcast.store.models import Broadcast, ingest
from broadcast.store.models.ingest import CollapsedEvent, EventName, EventSample, EventSource, RuleTally

SAMPLES = 20  # of the newest events of each source
_WAITING = (Broadcast.status == Status.DRAFT, Broadcast.quarantine_reason.is_not(None))


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose events are looked for: an owner's, and of the time before there were owners, those that `sender_id` sent."""

    owner: str
    sender_id: int

    def condition(self) -> ColumnElement[bool]:
        is_older = and_(Broadcast.source_owner.is_(None), Broadcast.sender_id == self.sender_id)
        return or_(Broadcast.source_owner == self.owner, is_older)

    def holds(self, broadcast: Any) -> bool:
        """Whether this row is theirs."""
        if broadcast.source_owner is None:
            return broadcast.sender_id == self.sender_id
        return broadcast.source_owner == self.owner


def hold(session: Session, sources: Collection[str], owners: Collection[str], *, at: datetime) -> None:
    """Let no other transaction judge these until this one ends: two must not both see room for one."""
    ingest.lock_senders(session, owners, at=at)
    ingest.count(session, {source: {} for source in sources}, at=at)


def shown_since(session: Session, source: str, rule: str, since: datetime) -> int:
    """How many broadcasts this rule let the source show after `since`."""
    query = select(func.coalesce(func.sum(RuleTally.shown), 0))
    return int(session.scalar(query.where(RuleTally.source == source, RuleTally.rule == rule, RuleTally.at > since)))


def shown_by_owner_since(session: Session, owner: str, rule: str, since: datetime) -> int:
    """The same of everything that an account or topic sent, whatever sources it named."""
    query = select(func.coalesce(func.sum(RuleTally.shown), 0))
    return int(session.scalar(query.where(RuleTally.owner == owner, RuleTally.rule == rule, RuleTally.at > since)))


def note_shown(
    session: Session, source: str, owner: str, rule: str, shown: int, *, at: datetime, per_seconds: int
) -> None:
    """Add to what both tell; what is out of its window is forgotten."""
    is_over = and_(RuleTally.rule == rule, RuleTally.at <= at - timedelta(seconds=per_seconds))
    session.execute(delete(RuleTally).where(RuleTally.source == source, is_over))
    session.execute(delete(RuleTally).where(RuleTally.owner == owner, is_over))
    session.execute(insert(RuleTally), [{"source": source, "owner": owner, "rule": rule, "at": at, "shown": shown}])


def live_cards(
    session: Session, wanted: Mapping[str, Collection[str]], *, now: datetime
) -> dict[tuple[str, str], list[Broadcast]]:
    """Live broadcasts by source and collapse key, whoever's, the newest first; locked until the transaction ends."""
    found: dict[tuple[str, str], list[Broadcast]] = {}
    for source, keys in sorted(wanted.items()):
        query = (
            select(Broadcast)
            .where(Broadcast.source == source, Broadcast.collapse_key.in_(keys), Broadcast.status == Status.ACTIVE)
            .where(or_(Broadcast.expires_at.is_(None), Broadcast.expires_at > now))
        )
        for row in session.scalars(query.order_by(Broadcast.id.desc()).with_for_update(**ROW_LOCK)):
            found.setdefault((source, row.collapse_key), []).append(row)
    return found


def quarantined(session: Session, source: str, whose: Whose, *, most: int) -> list[Broadcast]:
    """Their newest drafts of this source that wait in quarantine, at most `most`; locked until the transaction ends."""
    query = (
        select(Broadcast)
        .where(Broadcast.source == source, whose.condition(), *_WAITING)
        .order_by(Broadcast.id.desc())
        .limit(most)
    )
    return list(session.scalars(query.with_for_update(**ROW_LOCK)))


def count_quarantined(session: Session, whose: Whose) -> int:
    """How many drafts of theirs wait in quarantine, whatever sources they named."""
    return session.scalar(select(func.count()).select_from(Broadcast).where(whose.condition(), *_WAITING))


def named(session: Session, wanted: Mapping[tuple[str, str], Collection[str]]) -> dict[tuple[str, str, str], Broadcast]:
    """The broadcasts of events whose names they do not bear, by the event's owner, source and id there; locked."""
    found = {}
    for (owner, source), ids in sorted(wanted.items()):
        query = (
            select(EventName.source_id, Broadcast)
            .join(Broadcast, Broadcast.id == EventName.broadcast_id)
            .where(EventName.owner == owner, EventName.source == source, EventName.source_id.in_(ids))
            .order_by(Broadcast.id)
        )
        rows = session.execute(query.with_for_update(**ROW_LOCK, of=Broadcast)).all()
        found |= {(owner, source, source_id): broadcast for source_id, broadcast in rows}
    return found


def collapsed(session: Session, wanted: Mapping[str, Collection[str]]) -> dict[tuple[str, str], Broadcast]:
    """The cards on which these events were counted when names had no owner, by the event's source and id; locked."""
    found = {}
    for source, ids in sorted(wanted.items()):
        query = (
            select(CollapsedEvent.source_id, Broadcast)
            .join(Broadcast, Broadcast.id == CollapsedEvent.broadcast_id)
            .where(CollapsedEvent.source == source, CollapsedEvent.source_id.in_(ids))
            .order_by(Broadcast.id)
        )
        rows = session.execute(query.with_for_update(**ROW_LOCK, of=Broadcast)).all()
        found |= {(source, source_id): broadcast for source_id, broadcast in rows}
    return found


def note_names(session: Session, new: Iterable[tuple[str, str, str, int]]) -> None:
    """Remember events whose names their broadcasts do not bear: owner, source, id there, id of the broadcast."""
    if rows := [dict(zip(("owner", "source", "source_id", "broadcast_id"), one, strict=True)) for one in new]:
        session.execute(insert(EventName), rows)


def keep_samples(session: Session, newest: Mapping[str, Sequence[tuple[Record, str | None]]], *, at: datetime) -> None:
    """Keep the newest SAMPLES events of each source with their owners, these among them, and forget the older ones."""
    for source, events in sorted(newest.items()):
        session.execute(insert(EventSample), [_sample(source, *event, at) for event in events[-SAMPLES:]])
        of_source = EventSample.source == source
        kept = select(EventSample.id).where(of_source).order_by(EventSample.id.desc()).limit(SAMPLES)
        oldest = select(func.min(kept.subquery().c.id)).scalar_subquery()
        session.execute(delete(EventSample).where(of_source, EventSample.id < oldest))


def _sample(source: str, record: Record, owner: str | None, at: datetime) -> dict:
    place = record.place
    is_read = [
        one for one in record.headers if one[0].lower() == "content-type" or one[0][:3].lower() in ("ce_", "ce-")
    ]
    return {
        "source": source,
        "topic": place and place.topic,
        "partition": place and place.partition,
        "offset": place and place.offset,
        "key": record.key,
        "value": record.value and record.value[:VALUE_BYTES],
        "headers": dead_letters.packed(is_read),  # never the others: a webhook's hold its token
        "owner": owner,
        "at": at,
    }


def sampled_sources() -> list[str]:
    return list(db.session.scalars(select(EventSample.source).distinct().order_by(EventSample.source)))


def samples(sources: Collection[str]) -> Iterator[EventSample]:
    """The newest events of these sources, newest first."""
    query = select(EventSample).where(EventSample.source.in_(sources)).order_by(EventSample.id.desc())
    yield from db.session.scalars(query.execution_options(yield_per=SAMPLES))


def record_of(sample: EventSample) -> Record:
    """The event as it arrived, without the headers that nobody reads."""
    place = Place(sample.topic, sample.partition, sample.offset) if sample.topic is not None else None
    return Record(sample.value, sample.key, dead_letters.unpacked(sample.headers), place)


def figures(sources: Collection[str]) -> list[EventSource]:
    """What became of the events of these sources, the one that sent last first."""
    query = select(EventSource).where(EventSource.source.in_(sources)).order_by(EventSource.last_at.desc())
    return list(db.session.scalars(query))
