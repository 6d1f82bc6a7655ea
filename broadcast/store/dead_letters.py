"""Dead letters: written with the batch they came in, listed and found for the console."""

import base64
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, defer

from broadcast.domain.inbound import VALUE_BYTES, Place, Record, Rejected
from broadcast.store.database import IN_A_THREAD, db
from broadcast.store.models.ingest import DeadLetter, LetterStatus

PURGED_AT_ONCE = 200  # letters of one transaction, of 64 KiB each
_KEY_BYTES = 1024
_HEADERS_BYTES = 8 * 1024
_REASON_CHARACTERS = 2000


def add(session: Session, record: Record, rejected: Rejected, *, at: datetime) -> bool:
    """Keep a record of Kafka with the reason; False when this place is known already, as after offsets were set back."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(DeadLetter).values(
        status=LetterStatus.WAITING.value,
        topic=record.place.topic,
        partition=record.place.partition,
        offset=record.place.offset,
        last_offset=record.place.last_offset,
        timestamp_ms=record.place.timestamp_ms,
        key=record.key and record.key[:_KEY_BYTES],
        value=None if record.value is None else record.value[:VALUE_BYTES],
        size=record.size,
        headers=packed(record.headers),
        code=rejected.code,
        reason=rejected.reason[:_REASON_CHARACTERS],
        source=rejected.source,
        source_id=rejected.source_id,
        created_at=at,
        tries=0,
    )
    unique = ["topic", "partition", "offset"]
    added = statement.on_conflict_do_nothing(index_elements=unique).returning(DeadLetter.id)
    return session.scalar(added) is not None


def by_id(letter_id: int) -> DeadLetter | None:
    return db.session.get(DeadLetter, letter_id)


def page(
    status: LetterStatus | None, *, before: int | None = None, limit: int = 30, whole: bool = True
) -> list[DeadLetter]:
    """At most `limit` letters with id < `before`, newest first; of every status with None. `whole`: with their payloads."""
    query = select(DeadLetter)
    if not whole:
        query = query.options(defer(DeadLetter.key), defer(DeadLetter.value), defer(DeadLetter.headers))
    if status is not None:
        query = query.where(DeadLetter.status == status)
    if before is not None:
        query = query.where(DeadLetter.id < before)
    return list(db.session.scalars(query.order_by(DeadLetter.id.desc()).limit(limit)))


def counts() -> dict[str, int]:
    """Number of letters of each status."""
    found = dict(db.session.execute(select(DeadLetter.status, func.count()).group_by(DeadLetter.status)).all())
    return {status.value: found.get(status.value, 0) for status in LetterStatus}


def waiting_ids(*, through: int, limit: int) -> list[int]:
    """Ids of waiting letters, at most `limit`, those tried least first, then the oldest."""
    query = select(DeadLetter.id).where(DeadLetter.status == LetterStatus.WAITING, DeadLetter.id <= through)
    return list(db.session.scalars(query.order_by(DeadLetter.tries, DeadLetter.id).limit(limit)))


def count_waiting(*, through: int) -> int:
    query = select(func.count()).where(DeadLetter.status == LetterStatus.WAITING, DeadLetter.id <= through)
    return db.session.scalar(query)


def newest_id() -> int:
    """Id of the newest letter, 0 without any: what "all" means to somebody who looks now."""
    return db.session.scalar(select(func.max(DeadLetter.id))) or 0


def empty(session: Session, ids: Sequence[int] | None, *, through: int = 0) -> int:
    """Purge these waiting letters, or with None the oldest up to id `through`, at most PURGED_AT_ONCE; return how many."""
    waiting = select(DeadLetter.id).where(DeadLetter.status == LetterStatus.WAITING, DeadLetter.id <= through)
    chosen = DeadLetter.id.in_(ids if ids is not None else waiting.order_by(DeadLetter.id).limit(PURGED_AT_ONCE))
    statement = (
        update(DeadLetter)
        .where(DeadLetter.status == LetterStatus.WAITING, chosen)
        .values(status=LetterStatus.PURGED.value, key=None, value=None, headers=[])
        .execution_options(synchronize_session=False, **IN_A_THREAD)
    )
    return session.execute(statement).rowcount


def to_forward(limit: int = 100) -> list[DeadLetter]:
    """Waiting letters that the topic of dead letters does not have yet, oldest first."""
    query = select(DeadLetter).where(DeadLetter.status == LetterStatus.WAITING, DeadLetter.forwarded_at.is_(None))
    return list(db.session.scalars(query.order_by(DeadLetter.id).limit(limit)))


def note_forwarded(session: Session, ids: Sequence[int], *, at: datetime) -> None:
    statement = update(DeadLetter).where(DeadLetter.id.in_(ids)).values(forwarded_at=at)
    session.execute(statement.execution_options(synchronize_session=False))


def record_of(letter: DeadLetter) -> Record:
    """The record as it arrived. Of a value that was too large, only the first part is left."""
    place = Place(letter.topic, letter.partition, letter.offset, letter.timestamp_ms, letter.last_offset)
    return Record(letter.value, letter.key, unpacked(letter.headers), place)


def unpacked(headers: Sequence[Sequence[str]]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, base64.b64decode(value)) for name, value in headers)


def packed(headers: Sequence[tuple[str, bytes]]) -> list[list[str]]:
    """Headers as JSON holds them: values in base64, at most 8 KiB of them."""
    packed, left = [], _HEADERS_BYTES
    for name, value in headers:
        left -= len(name) + len(value)
        if left < 0:
            break
        packed.append([name.encode(errors="replace").decode().replace("\0", ""), base64.b64encode(value).decode()])
    return packed
