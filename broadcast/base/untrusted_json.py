"""What is read from Redis may have been written by anybody who reaches it: it is bounded, checked, and never raises more than
ValueError. What does not pass is left out, counted for `/metrics`, and told in the log once a minute for each place.
"""

import json
import time
from collections import Counter
from typing import Any

import structlog

MOST_BYTES = 64 * 1024  # of one value: eight streams of a person take 3 kB, a signal 1 kB
_QUIET_SECONDS = 60.0
_log = structlog.get_logger(__name__)
counts: Counter[str] = Counter()  # by place; `gauges` copies them
_told_at: dict[str, float] = {}


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for whatever is none, is too large, or lies deeper than Python goes."""
    if len(text) > MOST_BYTES:
        raise ValueError(f"{len(text)} bytes")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def reject(place: str, problem: object) -> None:
    """Say that something was left out. `place` is one of a few names; `problem` goes into the log, cut short."""
    counts[place] += 1
    now = time.monotonic()
    if now - _told_at.get(place, -_QUIET_SECONDS) >= _QUIET_SECONDS:
        _told_at[place] = now
        _log.warning("redis.unreadable", place=place, problem=str(problem)[:200], times=counts[place])
