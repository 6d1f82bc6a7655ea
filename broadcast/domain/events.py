"""Facts in the log, and the cursor that says how far a reader has come."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from broadcast.domain.audience import Audience


class EventType(StrEnum):
    """What the log holds. The first three reach clients under the same name; the others steer the hubs themselves."""

    MESSAGE = "MESSAGE"
    MESSAGE_UPDATED = "MESSAGE_UPDATED"
    MESSAGE_REMOVED = "MESSAGE_REMOVED"
    VIEWER_CHANGED = "VIEWER_CHANGED"  # payload {roles, disabled}: open streams of that person are re-indexed or closed
    ROLE_CHANGED = "ROLE_CHANGED"  # payload {role, to}: it has another name from here on; `to` None: nobody has it
    SESSION_ENDED = "SESSION_ENDED"  # payload {session}: open streams of that session, or of EVERY_SESSION, are closed
    UNKNOWN = (
        "UNKNOWN"  # never written: what a newer version wrote and this one cannot read, so nothing is known for sure
    )


ALL_SESSIONS = "*"  # tokens' streams too
CLIENT_EVENT_TYPES = frozenset({EventType.MESSAGE, EventType.MESSAGE_UPDATED, EventType.MESSAGE_REMOVED})


encode_compact_json = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":")
).encode  # payloads, as the log and the streams have them


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the log. `seq` has no gaps and rises in commit order within an epoch.

    `payload_json` is the payload as text in one line: it is encoded where it is written, and goes from there through the log
    to every stream as it is.
    """

    seq: int
    epoch: str
    type: EventType
    broadcast_id: int | None
    audience: Audience
    payload_json: str
    at: datetime
    correlation_id: str | None = None  # what it was done for: see `base.correlation_id`

    @property
    def payload(self) -> dict[str, Any]:
        """Decoded anew each time."""
        return json.loads(self.payload_json)

    @property
    def cursor(self) -> "Cursor":
        return Cursor(self.epoch, self.seq)

    @property
    def is_for_clients(self) -> bool:
        return self.type in CLIENT_EVENT_TYPES


class Cursor(NamedTuple):
    """`epoch-seq`. An epoch ends when an older database is restored: numbers are then given out a second time."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


_CURSOR_PATTERN = re.compile(r"([0-9a-z]{1,16})-(0|[1-9][0-9]{0,17})")


def parse_cursor(text: str | None) -> Cursor | None:
    """Read a client's cursor; None for anything that this system cannot have written. Never raises."""
    match = _CURSOR_PATTERN.fullmatch(text or "")
    return Cursor(match[1], int(match[2])) if match else None
