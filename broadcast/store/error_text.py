"""What an error of the database says, without the values that it was given: people wrote them, and errors go into logs.

PostgreSQL names values in its details ("Key (username)=(bob) already exists.") and in what it says of a value that it cannot
take; SQLite names words of a search. What kind of error it is, and of which constraint, stays.
"""

import re
import sqlite3

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'", re.DOTALL)
_OF_VALUES = "22"  # class of SQLSTATE: data exceptions


def conceal_values(engine: Engine) -> None:
    """Every error of this engine says no more than `conceal` leaves."""

    @event.listens_for(engine, "handle_error")
    def _conceal(context: ExceptionContext) -> None:
        before = str(context.original_exception)
        conceal(context.original_exception)
        wrapped, after = context.sqlalchemy_exception, str(context.original_exception)
        if wrapped is not None and before != after:
            wrapped.args = tuple(arg.replace(before, after) if isinstance(arg, str) else arg for arg in wrapped.args)


def conceal(problem: BaseException) -> None:
    """Change an error of a driver in place: its first line, without what stands in quotes when that is a value.

    What PostgreSQL says of a connection has no SQLSTATE and names no values; all of it stays.
    """
    state, is_sqlite = getattr(problem, "sqlstate", None), isinstance(problem, sqlite3.Error)
    if not (state or is_sqlite) or not problem.args or not isinstance(problem.args[0], str):
        return
    first = problem.args[0].partition("\n")[0]
    if is_sqlite or state.startswith(_OF_VALUES):
        first = _QUOTED.sub('"…"', first)
    problem.args = (f"{first} [{state}]" if state else first, *problem.args[1:])
