"""Which request (or record, or loop) all this is done for: one id from the request over the log event to the delivery."""

import re
from contextvars import ContextVar

LONGEST = 64
_SAFE = re.compile(rf"[A-Za-z0-9._:-]{{8,{LONGEST}}}")
_current: ContextVar[str | None] = ContextVar("correlation", default=None)


def current() -> str | None:
    """The id of what is being done now; None where nobody gave it one."""
    return _current.get()


def begin(id: str) -> None:
    """From here on, in this greenlet, everything is done for `id`."""
    _current.set(id[:LONGEST])


def is_safe(id: str) -> bool:
    """Whether an id from outside may be kept and logged: 8 to 64 plain characters."""
    return _SAFE.fullmatch(id) is not None
