"""Dead letters: written with the batch they came in, listed and loaded for the console."""

import base64
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, defer

from broadcast.domain.inbound import MAX_VALUE_BYTES, InboundRecord, RecordPosition, Rejection
from broadcast.store.database import build_insert, db
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.models.ingest import DeadLetter, DeadLetterStatus

PURGE_BATCH_SIZE = 200  # letters per transaction, 64 KiB each
_IS_WAITING = DeadLetter.status == DeadLetterStatus.WAITING
_MAX_KEY_BYTES = 1024
_MAX_HEADERS_BYTES = 8 * 1024
_MAX_REASON_CHARACTERS = 2000


def add(session: Session, record: InboundRecord, rejected: Rejection, *, at: datetime) -> bool:
    """Store a Kafka record with the reason; False when its position is known already, as after an offset reset."""
    statement = build_insert(session, DeadLetter).values(
        **asdict(record.position),
        key=record.key and record.key[:_MAX_KEY_BYTES],
        value=None if record.value is None else record.value[:MAX_VALUE_BYTES],
        size=record.size,
        headers=encode_headers(record.headers),
        code=rejected.code,
        reason=rejected.reason[:_MAX_REASON_CHARACTERS],
        source=rejected.source,
        source_id=rejected.source_id,
        created_at=at,
    )
    unique_columns = ["topic", "partition", "offset"]
    added = statement.on_conflict_do_nothing(index_elements=unique_columns).returning(DeadLetter.id)
    return session.scalar(added) is not None


def get(letter_id: int) -> DeadLetter | None:
    return db.session.get(DeadLetter, letter_id)


def list_page(
    status: DeadLetterStatus | None, *, before: int | None = None, limit: int = 30, should_load_payload: bool = True
) -> list[DeadLetter]:
    """At most `limit` letters with id < `before`, newest first; of every status when `status` is None.

    `should_load_payload`: with their payloads.
    """
    query = select(DeadLetter)
    if not should_load_payload:
        query = query.options(defer(DeadLetter.key), defer(DeadLetter.value), defer(DeadLetter.headers))
    if status is not None:
        query = query.where(DeadLetter.status == status)
    if before is not None:
        query = query.where(DeadLetter.id < before)
    return list(db.session.scalars(query.order_by(DeadLetter.id.desc()).limit(limit)))


def count_by_status() -> dict[str, int]:
    counts = dict(db.session.execute(select(DeadLetter.status, func.count()).group_by(DeadLetter.status)).all())
    return {status.value: counts.get(status.value, 0) for status in DeadLetterStatus}


def list_waiting_ids(*, through: int, limit: int) -> list[int]:
    """Ids of waiting letters, at most `limit`: fewest tries first, then oldest."""
    query = select(DeadLetter.id).where(_IS_WAITING, DeadLetter.id <= through)
    return list(db.session.scalars(query.order_by(DeadLetter.tries, DeadLetter.id).limit(limit)))


def count_waiting(*, through: int) -> int:
    return db.session.scalar(select(func.count()).where(_IS_WAITING, DeadLetter.id <= through))


def get_newest_id() -> int:
    """Id of the newest letter, 0 without any: the limit of "all" for a user who looks now."""
    return db.session.scalar(select(func.max(DeadLetter.id))) or 0


def purge(session: Session, ids: Sequence[int] | None, *, through: int = 0) -> int:
    """Purge these waiting letters, or with None the oldest PURGE_BATCH_SIZE up to id `through`; return how many."""
    if ids is None:
        oldest_ids = select(DeadLetter.id).where(_IS_WAITING, DeadLetter.id <= through).order_by(DeadLetter.id)
        ids = oldest_ids.limit(PURGE_BATCH_SIZE)
    statement = update(DeadLetter).where(_IS_WAITING, DeadLetter.id.in_(ids))
    statement = statement.values(status=DeadLetterStatus.PURGED.value, key=None, value=None, headers=[])
    return session.execute(statement.execution_options(synchronize_session=False, **RUN_IN_THREAD)).rowcount


def list_unforwarded(limit: int = 100) -> list[DeadLetter]:
    """Waiting letters that are not in the dead letter topic yet, oldest first."""
    query = select(DeadLetter).where(_IS_WAITING, DeadLetter.forwarded_at.is_(None))
    return list(db.session.scalars(query.order_by(DeadLetter.id).limit(limit)))


def mark_forwarded(session: Session, ids: Sequence[int], *, at: datetime) -> None:
    statement = update(DeadLetter).where(DeadLetter.id.in_(ids)).values(forwarded_at=at)
    session.execute(statement.execution_options(synchronize_session=False))


def to_record(letter: DeadLetter) -> InboundRecord:
    """The record as it arrived. A value that was too large is truncated."""
    position = RecordPosition(letter.topic, letter.partition, letter.offset, letter.timestamp_ms, letter.last_offset)
    return InboundRecord(letter.value, letter.key, decode_headers(letter.headers), position)


def decode_headers(headers: Sequence[Sequence[str]]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, base64.b64decode(value)) for name, value in headers)


def encode_headers(headers: Sequence[tuple[str, bytes]]) -> list[list[str]]:
    """Headers as JSON: values in base64, at most 8 KiB in total."""
    encoded, remaining_bytes = [], _MAX_HEADERS_BYTES
    for name, value in headers:
        remaining_bytes -= len(name) + len(value)
        if remaining_bytes < 0:
            break
        encoded.append([name.encode(errors="replace").decode().replace("\0", ""), base64.b64encode(value).decode()])
    return encoded
