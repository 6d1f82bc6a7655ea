"""Which database errors are temporary (locked, down, or not the primary), and which mean that a statement or the schema
is wrong. The only module that knows the error codes of both databases.
"""

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_READ_ONLY_STATE = "25006"  # this server is a standby or was made read-only: another one is the primary
_SHUTDOWN_STATES = ("57P01", "57P02", "57P03")
_CONNECTION_EXCEPTION_CLASS = "08"  # the class of "connection exception"
_LIMIT_EXCEEDED_CLASS = "54"  # the class of "program limit exceeded"

_SQLITE_ERROR = 1  # SQLITE_ERROR: no such table, a syntax error (https://www.sqlite.org/rescode.html#error)


def is_unavailable(problem: DBAPIError | PoolTimeout) -> bool:
    """Whether a retry may succeed without a change of the program or the schema."""
    if isinstance(problem, PoolTimeout):
        return True
    return problem.connection_invalidated or _is_transient(problem.orig)


def is_driver_unavailable(problem: Exception) -> bool:
    """The same for errors from direct use of the driver (PEP 249) or of the pool."""
    if isinstance(problem, DBAPIError | PoolTimeout):
        return is_unavailable(problem)
    # InterfaceError: the connection was closed while in use
    return _is_transient(problem) or type(problem).__name__ == "InterfaceError"


def is_on_wrong_server(problem: BaseException | None) -> bool:
    """Whether the connection leads to a server that is read-only or shutting down, and must be replaced."""
    state = getattr(problem, "sqlstate", None) or ""
    return state == _READ_ONLY_STATE or state in _SHUTDOWN_STATES or state.startswith(_CONNECTION_EXCEPTION_CLASS)


def _is_transient(problem: BaseException | None) -> bool:
    if not any(base_class.__name__ == "OperationalError" for base_class in type(problem).__mro__):
        return is_on_wrong_server(problem)  # psycopg calls "read-only" an internal error
    if (code := getattr(problem, "sqlite_errorcode", None)) is not None:
        return code & 0xFF != _SQLITE_ERROR
    return not (getattr(problem, "sqlstate", None) or "").startswith(_LIMIT_EXCEEDED_CLASS)
