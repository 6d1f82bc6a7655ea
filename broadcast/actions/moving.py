"""Moving everything to another database: out as JSON lines, in as one transaction that ends every cursor given out before."""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from broadcast.actions import audit
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.errors import Conflict, Invalid
from broadcast.store import log, schema, transfer
from broadcast.store.database import writing

FORMAT = "broadcast-export-1"


def export(*, now: datetime) -> Iterator[str]:
    """Lines of JSON: a head, then every row. It holds hashes of passwords and tokens: keep it as you keep the database."""
    yield json.dumps({"format": FORMAT, "at": clock.to_wire(now), "migrations": schema.applied_migrations()})
    for table, row in transfer.rows():
        yield json.dumps({"table": table, "row": row}, ensure_ascii=False, separators=(",", ":"))


def take_in(lines: Iterable[str], *, now: datetime) -> int:
    """Write an export into an empty database; return the number of rows. Raises Invalid and Conflict, and writes nothing then.

    A new epoch begins: a page that was open on the old system loads its list anew and misses nothing.
    """
    lines = iter(lines)
    _expect_head(next(lines, ""))
    with writing() as session:
        if not transfer.is_empty(session):
            raise Conflict(
                "This database has people already. An export goes into an empty one: see docs/operations.md."
            )
        try:
            count = transfer.insert_rows(session, map(_row, lines))
        except (ValueError, KeyError, TypeError) as problem:
            raise Invalid({"file": f"This is no whole export of this version: {problem}"}) from None
        epoch = log.start_epoch(session)
        audit.record(session, SYSTEM, "data.import", "log", None, now=now, rows=count, epoch=epoch)
    return count


def _expect_head(line: str) -> None:
    try:
        head = json.loads(line)
        given, here = head["migrations"], schema.applied_migrations()
        if head["format"] != FORMAT:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise Invalid({"file": "This is no export: its first line does not say so."}) from None
    if given != here:
        raise Invalid({"file": f"It was made at {', '.join(given)} and this database is at {', '.join(here)}."})


def _row(line: str) -> tuple[str, dict[str, Any]]:
    item = json.loads(line)
    return item["table"], item["row"]
