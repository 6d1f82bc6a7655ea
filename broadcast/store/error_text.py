"""Database error messages without the values: users wrote them, and errors go into logs.

PostgreSQL includes values in its details ("Key (username)=(bob) already exists.") and in messages about a value that it
cannot accept; SQLite includes search words. The kind of error and the constraint stay.
"""

import re
import sqlite3

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

_QUOTED_TEXT = re.compile(r"\"[^\"]*\"|'[^']*'", re.DOTALL)
_DATA_EXCEPTION_CLASS = "22"  # SQLSTATE class: data exceptions


def redact_engine_errors(engine: Engine) -> None:
    """Apply `redact_error` to every error of this engine."""

    @event.listens_for(engine, "handle_error")
    def _redact(context: ExceptionContext) -> None:
        before = str(context.original_exception)
        redact_error(context.original_exception)
        wrapped, after = context.sqlalchemy_exception, str(context.original_exception)
        if wrapped is not None and before != after:
            wrapped.args = tuple(arg.replace(before, after) if isinstance(arg, str) else arg for arg in wrapped.args)


def redact_error(problem: BaseException) -> None:
    """Reduce a driver's error in place to its first line, without quoted values.

    PostgreSQL's connection errors have no SQLSTATE and contain no values; they stay complete.
    """
    state, is_sqlite = getattr(problem, "sqlstate", None), isinstance(problem, sqlite3.Error)
    if not (state or is_sqlite) or not problem.args or not isinstance(problem.args[0], str):
        return
    message = problem.args[0].partition("\n")[0]
    if is_sqlite or state.startswith(_DATA_EXCEPTION_CLASS):
        message = _QUOTED_TEXT.sub('"…"', message)
    problem.args = (f"{message} [{state}]" if state else message, *problem.args[1:])
