"""Server-sent events as bytes (WHATWG HTML, section 9.2).

`id` and `event` come from this program and never contain a line break; `data` may contain anything, and each of its
lines gets its own `data:`.
"""

import random
import re
from enum import StrEnum
from typing import Any

from broadcast.domain.events import Cursor, Event, encode_compact_json

_LINE_ENDING = re.compile(r"\r\n|\r|\n")  # not str.splitlines, which splits at U+2028 and others too: data here
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")


class UnloggedEvent(StrEnum):
    """Events on the wire that are not in the log; those that are: `EventType`. `docs/architecture.md` has their data."""

    CONNECTED = "CONNECTED"
    READ_RECEIPT = "READ_RECEIPT"
    HEARTBEAT = "HEARTBEAT"
    RESET = "RESET"
    BUSY = "BUSY"
    CONNECTION_LIMIT_REACHED = "CONNECTION_LIMIT_REACHED"
    SERVER_SHUTDOWN = "SERVER_SHUTDOWN"
    SIGNED_OUT = "SIGNED_OUT"


def encode_frame(event: str, data: str, *, id: str | None = None, retry_ms: int | None = None) -> bytes:
    """Encode one event. Raises ValueError for a control character in `event` or `id`."""
    if _CONTROL_CHARACTER.search(event) or _CONTROL_CHARACTER.search(id or ""):
        raise ValueError("control characters cannot be in the event or the id of a frame")
    lines = [] if id is None else [f"id: {id}"]
    if retry_ms is not None:
        lines.append(f"retry: {retry_ms}")
    lines.append(f"event: {event}")
    lines.extend(f"data: {line}" for line in (_LINE_ENDING.split(data) if "\n" in data or "\r" in data else (data,)))
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def encode_json_frame(event: str, data: dict[str, Any], *, id: str | None = None, retry_ms: int | None = None) -> bytes:
    return encode_frame(event, encode_compact_json(data), id=id, retry_ms=retry_ms)


def encode_event_json(event: Event) -> bytes:
    """The JSON representation of a logged event."""
    return encode_frame(event.type.value, event.payload_json, id=str(event.cursor))


def encode_reset(cursor: Cursor) -> bytes:
    """Continuity was lost: the client loads its list and continues from `cursor`."""
    return encode_json_frame(UnloggedEvent.RESET, {"cursor": str(cursor)}, id=str(cursor))


def encode_refusal(event_name: str) -> bytes:
    """The only frame of a refused stream: a 429 or 503 would stop a browser's EventSource for good."""
    return encode_json_frame(event_name, {}, retry_ms=jitter_ms(5000))


def jitter_ms(mean_ms: int) -> int:
    """`mean_ms` ± 40 %, so that clients told at once do not all return at once."""
    return random.randint(mean_ms * 6 // 10, mean_ms * 14 // 10)


HEARTBEAT_FRAME = encode_json_frame(UnloggedEvent.HEARTBEAT, {})
