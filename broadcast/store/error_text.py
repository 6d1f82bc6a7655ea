"""What an error of the database says, without the values that it was given: people wrote them, and errors go into logs.

PostgreSQL names values in its details ("Key (username)=(bob) already exists.") and in what it says of a value that it cannot
take; SQLite names words of a search. What kind of error it is, and of which constraint, stays.
"""

import re
import sqlite3

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

_QUOTED_TEXT = re.compile(r"\"[^\"]*\"|'[^']*'", re.DOTALL)
_DATA_EXCEPTION_CLASS = "22"  # class of SQLSTATE: data exceptions


def redact_engine_errors(engine: Engine) -> None:
    """Every error of this engine says no more than `redact_error` leaves."""

    @event.listens_for(engine, "handle_error")
    def _redact(context: ExceptionContext) -> None:
        before = str(context.original_exception)
        redact_error(context.original_exception)
        wrapped, after = context.sqlalchemy_exception, str(context.original_exception)
        if wrapped is not None and before != after:
            wrapped.args = tuple(arg.replace(before, after) if isinstance(arg, str) else arg for arg in wrapped.args)


def redact_error(problem: BaseException) -> None:
    """Change an error of a driver in place: its first line, without what stands in quotes when that is a value.

    What PostgreSQL says of a connection has no SQLSTATE and names no values; all of it stays.
    """
    state, is_sqlite = getattr(problem, "sqlstate", None), isinstance(problem, sqlite3.Error)
    if not (state or is_sqlite) or not problem.args or not isinstance(problem.args[0], str):
        return
    message = problem.args[0].partition("\n")[0]
    if is_sqlite or state.startswith(_DATA_EXCEPTION_CLASS):
        message = _QUOTED_TEXT.sub('"…"', message)
    problem.args = (f"{message} [{state}]" if state else message, *problem.args[1:])
