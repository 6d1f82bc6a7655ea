"""Events of the log, and the cursor that says how far a client has read."""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from broadcast.domain.audience import Audience


class EventType(StrEnum):
    """Types of events. The first three reach clients under the same name; the others are control events."""

    MESSAGE = "MESSAGE"
    MESSAGE_UPDATED = "MESSAGE_UPDATED"
    MESSAGE_REMOVED = "MESSAGE_REMOVED"
    VIEWER_CHANGED = "VIEWER_CHANGED"  # payload {roles, disabled}: that user's open streams are re-indexed or closed
    ROLE_CHANGED = "ROLE_CHANGED"  # payload {role, to}: the role is renamed; `to` None: it is deleted
    SESSION_ENDED = "SESSION_ENDED"  # payload {session}: open streams of that session, or of ALL_SESSIONS, are closed
    UNKNOWN = "UNKNOWN"  # never written: stands for a newer version's event that this version cannot read


ALL_SESSIONS = "*"  # includes tokens' streams
CLIENT_EVENT_TYPES = frozenset({EventType.MESSAGE, EventType.MESSAGE_UPDATED, EventType.MESSAGE_REMOVED})
# for payloads in the log and on streams
encode_compact_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the log. Within an epoch, `seq` has no gaps and rises in commit order.

    `payload_json` is the payload as one line of JSON. It is encoded once, when written, and passes unchanged through
    the log to every stream.
    """

    seq: int
    epoch: str
    type: EventType
    broadcast_id: int | None
    audience: Audience
    payload_json: str
    at: datetime
    correlation_id: str | None = None  # of the work that caused it: see `base.correlation`
    traceparent: str | None = None

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
    """`epoch-seq`. Restoring an older database ends the epoch, because its numbers are then assigned again."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"


_CURSOR_PATTERN = re.compile(r"([0-9a-z]{1,16})-(0|[1-9][0-9]{0,17})")


def parse_cursor(text: str | None) -> Cursor | None:
    """Parse a client's cursor; None for anything that this system cannot have written. Never raises."""
    match = _CURSOR_PATTERN.fullmatch(text or "")
    return Cursor(match[1], int(match[2])) if match else None
