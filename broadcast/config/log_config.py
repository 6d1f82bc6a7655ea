"""Logging: structlog to standard error, each line with the current correlation id."""

import logging
import re
import sys
from typing import Any

import structlog

from broadcast.base.correlation import current_id as current_correlation

_UNFIT = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]")  # ends a line or controls a terminal


def configure(format: str, level: str) -> None:
    """Log to standard error, as JSON lines (`format` "json") or as text, from `level` up."""
    renderer = structlog.processors.JSONRenderer() if format == "json" else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_correlation,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _escape,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _add_correlation(_logger: object, _method: str, line: dict) -> dict:
    if (id := current_correlation()) is not None:
        line.setdefault("correlation", id)
    return line


def _escape(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Keep user-supplied text on its log line; only a traceback keeps its line breaks."""
    for name, value in event.items():
        if isinstance(value, str):
            value = value if name == "exception" else value.replace("\n", "\\n")
            event[name] = _UNFIT.sub(lambda found: ascii(found[0])[1:-1], value)
    return event
