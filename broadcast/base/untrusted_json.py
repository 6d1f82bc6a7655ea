"""What is read from Redis may have been written by anybody who reaches it: it is bounded, checked, and never raises more than
ValueError. What does not pass is left out, counted for `/metrics`, and told in the log once a minute for each place.
"""

import json
import time
from collections import Counter
from typing import Any

import structlog

MAX_VALUE_BYTES = 64 * 1024  # of one value: eight streams of a person take 3 kB, a signal 1 kB
_LOG_INTERVAL_SECONDS = 60.0
_log = structlog.get_logger(__name__)
rejection_counts: Counter[str] = Counter()  # by place; `gauges` copies them
_logged_at: dict[str, float] = {}


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for whatever is none, is too large, or lies deeper than Python goes."""
    if len(text) > MAX_VALUE_BYTES:
        raise ValueError(f"{len(text)} bytes")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def record_rejection(source: str, problem: object) -> None:
    """Say that something was left out. `source` is one of a few names; `problem` goes into the log, cut short."""
    rejection_counts[source] += 1
    now = time.monotonic()
    if now - _logged_at.get(source, -_LOG_INTERVAL_SECONDS) >= _LOG_INTERVAL_SECONDS:
        _logged_at[source] = now
        _log.warning("redis.unreadable", place=source, problem=str(problem)[:200], times=rejection_counts[source])
