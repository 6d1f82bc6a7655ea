"""Move all data to another database: export as JSON lines, import in one transaction that invalidates old cursors."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from sqlalchemy.exc import DataError, IntegrityError

from broadcast.actions import overdue_schedules
from broadcast.base.errors import Conflict, Invalid
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import audit, log, schema, transfer
from broadcast.store.transactions import write_transaction

FORMAT = "broadcast-export-2"  # 2: the last line has the row count and the hash of all lines before it
_DATABASE_NOT_EMPTY = "This database has users already. An export goes into an empty one: see docs/operations.md."
_FILE_CHANGED = "Its last line counts other rows than it has: it was changed or cut. Export again."


def export_dump(*, now: datetime) -> Iterator[str]:
    """Lines of JSON: a header, every row, and a last line that proves it complete. It has hashes of passwords."""
    digest, counts = hashlib.sha256(), Counter()

    def encode_line(item: dict[str, Any]) -> str:
        text = json.dumps(item, ensure_ascii=False, separators=(",", ":"))
        digest.update(text.encode() + b"\n")
        return text

    yield encode_line({"format": FORMAT, "at": clock.to_rfc3339(now), "migrations": schema.list_applied_migrations()})
    for table, row in transfer.export_rows():
        counts[table] += 1
        yield encode_line({"table": table, "row": row})
    yield encode_line({"end": {"rows": dict(counts), "sha256": digest.hexdigest()}})


def import_dump(lines: Iterable[str], *, now: datetime, may_resume_schedules: bool = False) -> int:
    """Import an export into an empty database; return the number of rows.

    Raises Invalid and Conflict, and writes nothing then. A new epoch starts: a page that was open on the old system
    reloads its list and misses nothing. Scheduled broadcasts wait for a decision, as the old system may have sent them
    since, unless `may_resume_schedules`.
    """
    if problem := schema.check_compatibility().problem:
        raise Conflict(problem)
    digest = hashlib.sha256()
    try:
        lines = iter(lines)
        _check_header(_read_line(lines, digest))
        with write_transaction() as session:
            if not transfer.is_empty(session):
                raise Conflict(_DATABASE_NOT_EMPTY)
            count = transfer.insert_rows(session, _read_rows(lines, digest))
            epoch = log.start_epoch(session)
            if not may_resume_schedules:
                overdue_schedules.suspend_all(session, now=now)
            audit.record(session, SYSTEM, "data.import", "log", None, now=now, rows=count, epoch=epoch)
    except (ValueError, KeyError, TypeError) as problem:
        raise Invalid({"file": f"This is no whole export of this version: {problem}"}) from None
    except (IntegrityError, DataError):
        raise Invalid({"file": "Its rows do not fit together: it was changed. Export again."}) from None
    return count


def _read_line(lines: Iterator[str], digest: Any) -> str:
    line = next(lines, "").rstrip("\r\n")
    digest.update(line.encode() + b"\n")
    return line


def _check_header(line: str) -> None:
    try:
        header = json.loads(line)
        dump_migrations, database_migrations = header["migrations"], schema.list_applied_migrations()
        if header["format"] != FORMAT:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise Invalid({"file": "This is no export of this version: its first line does not say so."}) from None
    if dump_migrations != database_migrations:
        made_at, here = ", ".join(dump_migrations), ", ".join(database_migrations)
        raise Invalid({"file": f"It was made at {made_at} and this database is at {here}."})


def _read_rows(lines: Iterator[str], digest: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows, up to the last line. Raises Invalid when that is missing or does not match."""
    counts: Counter[str] = Counter()
    expected_digest = digest.hexdigest()
    while line := _read_line(lines, digest):
        item = json.loads(line)
        if "end" in item:
            if item["end"] != {"rows": dict(counts), "sha256": expected_digest} or next(lines, None) is not None:
                raise Invalid({"file": _FILE_CHANGED})
            return
        counts[item["table"]] += 1
        expected_digest = digest.hexdigest()
        yield item["table"], item["row"]
    raise Invalid({"file": "The file ends before its last line: it was cut off. Export again, or copy the whole file."})
