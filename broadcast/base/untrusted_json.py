"""Bounded parsing of data from Redis, which anyone with access to the server may have written.

Nothing here raises more than ValueError. Rejected data is skipped, counted for `/metrics`, and logged once a minute per
source.
"""

import json
import time
from collections import Counter
from typing import Any

import structlog

MAX_VALUE_BYTES = 64 * 1024  # of one value: eight streams of a user take 3 kB, a signal 1 kB
_LOG_INTERVAL_SECONDS = 60.0
_log = structlog.get_logger(__name__)
rejection_counts: Counter[str] = Counter()  # by source; `gauges` copies them
_logged_at: dict[str, float] = {}


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON text. Raises ValueError if it is invalid, too large, or nested too deeply for Python."""
    if len(text) > MAX_VALUE_BYTES:
        raise ValueError(f"{len(text)} bytes")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def record_rejection(source: str, problem: object) -> None:
    """Count and log rejected data. `source` is one of a few names; `problem` is cut to 200 characters in the log."""
    rejection_counts[source] += 1
    now = time.monotonic()
    if now - _logged_at.get(source, -_LOG_INTERVAL_SECONDS) >= _LOG_INTERVAL_SECONDS:
        _logged_at[source] = now
        _log.warning("redis.unreadable", place=source, problem=str(problem)[:200], times=rejection_counts[source])
