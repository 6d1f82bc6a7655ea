"""Which request (or record, or loop) all this is done for: one id from the request over the log event to the delivery."""

import re
from contextvars import ContextVar

MAX_ID_CHARACTERS = 64
_SAFE_ID = re.compile(rf"[A-Za-z0-9._:-]{{8,{MAX_ID_CHARACTERS}}}")
_current_id: ContextVar[str | None] = ContextVar("correlation", default=None)


def current_id() -> str | None:
    """The id of what is being done now; None where nobody gave it one."""
    return _current_id.get()


def set_current_id(correlation_id: str) -> None:
    """From here on, in this greenlet, everything is done for `correlation_id`."""
    _current_id.set(correlation_id[:MAX_ID_CHARACTERS])


def is_safe_id(correlation_id: str) -> bool:
    """Whether an id from outside may be kept and logged: 8 to 64 plain characters."""
    return _SAFE_ID.fullmatch(correlation_id) is not None
