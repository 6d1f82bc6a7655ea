"""What ties together the log lines, events and spans of the current work, in this worker and in all others."""

import re
from contextvars import ContextVar

MAX_ID_CHARACTERS = 64
_SAFE_ID = re.compile(rf"[A-Za-z0-9._:-]{{8,{MAX_ID_CHARACTERS}}}")
_current_id: ContextVar[str | None] = ContextVar("correlation", default=None)
_current_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)


def current_id() -> str | None:
    """The correlation id of the current work, or None."""
    return _current_id.get()


def set_current_id(correlation_id: str) -> None:
    """Set the correlation id of this greenlet."""
    _current_id.set(correlation_id[:MAX_ID_CHARACTERS])


def current_traceparent() -> str | None:
    """The current span as in the header `traceparent` (W3C Trace Context); None unless the work is traced."""
    return _current_traceparent.get()


def set_traceparent(traceparent: str | None) -> None:
    _current_traceparent.set(traceparent)


def is_safe_id(correlation_id: str) -> bool:
    """Whether an id from outside may be stored and logged: 8 to 64 plain characters."""
    return _SAFE_ID.fullmatch(correlation_id) is not None
