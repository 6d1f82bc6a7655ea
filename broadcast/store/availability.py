"""Which database errors are temporary (locked, down, or not the primary), and what an operator can do about them. Others
mean that a statement or the schema is wrong. The only module that knows the error codes of both databases.

libpq gives no SQLSTATE for a failed connection, so its messages are matched, in the English that servers use by
default. An unrecognised message is passed on as it is.
"""

import re
from typing import NamedTuple

from sqlalchemy.engine import URL
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


class ConnectionFailure(NamedTuple):
    """`public` reveals nothing about the installation, for /readyz. `operator` says where and what to do."""

    public: str
    operator: str


def describe_failure(problem: BaseException, url: URL) -> ConnectionFailure:
    """Explain the driver's error to the operator who set DATABASE_URL."""
    message = " ".join(str(problem).split()).rstrip(".?!")
    if url.get_backend_name() == "sqlite":
        unknown = ("The database file cannot be used.", f"{{path}} cannot be used: {message}.")
        public, operator = _SQLITE_FAILURES.get(message, unknown)
        return ConnectionFailure(public, operator.replace("{path}", url.database))
    servers = _format_servers(url)
    for pattern, (public, operator) in _FAILURES.items():
        if matched := re.search(pattern, message):
            fields = {"where": servers, "user": url.username or "", "create": _build_create_command(url)}
            return ConnectionFailure(public, operator.format_map(fields | matched.groupdict()))
    return ConnectionFailure(
        "The database does not answer.", f"The database at {servers} does not answer as it should: {message}."
    )


# In this order: that one of several servers refuses says more than that another is down.
_FAILURES = {
    r"in a read-only transaction": (
        "The database is read-only.",
        "The server at {where} is read-only: perhaps a standby. Name the primary, or all servers, in DATABASE_URL.",
    ),
    r'FATAL: +database "(?P<database>.*?)" does not exist': (
        "The database in DATABASE_URL does not exist.",
        'The database "{database}" does not exist on {where}. Create it with `{create}`, or correct DATABASE_URL.',
    ),
    r"password authentication failed|no password supplied|FATAL: +role .* does not exist|Peer authentication failed": (
        "The database refuses the user name or password in DATABASE_URL.",
        'The server at {where} refuses the user "{user}" or the password. Correct DATABASE_URL, or set the password with '
        "`ALTER ROLE`.",
    ),
    r"no pg_hba\.conf entry|pg_hba\.conf rejects": (
        "The database accepts no connection from this machine.",
        'The server at {where} accepts no connection from this machine for the user "{user}". Add a line to its pg_hba.conf.',
    ),
    r"permission denied for database": (
        "The database refuses the user in DATABASE_URL.",
        'The user "{user}" may not connect to this database on {where}. Grant it with `GRANT CONNECT ON DATABASE`.',
    ),
    r"session is read-only|session is not read-only": (
        "None of the servers in DATABASE_URL takes writes.",
        "None of the servers in DATABASE_URL ({where}) takes writes. Promote a standby, or add the primary.",
    ),
    r"too many (clients|connections)|remaining connection slots are reserved": (
        "The database has no free connection.",
        "The server at {where} has no free connection. Raise its max_connections, or lower DATABASE_POOL_SIZE.",
    ),
    r"failed to resolve host|could not translate host name": (
        "The database's host name cannot be found.",
        "The host name of {where} cannot be found. Correct DATABASE_URL, or check the DNS of this machine.",
    ),
    r"does not support SSL|certificate verify failed|root certificate file .* does not exist|SSL error": (
        "The database cannot be spoken to as `sslmode` in DATABASE_URL demands.",
        "The server at {where} cannot be spoken to as `sslmode` in DATABASE_URL demands. Set up TLS on the server, name its "
        "authority in `sslrootcert`, or choose another `sslmode`.",
    ),
    r"Connection refused|No such file or directory": (
        "The database does not answer.",
        "No database server listens at {where}. Start it, or correct DATABASE_URL.",
    ),
    r"timeout expired|timed out": (
        "The database does not answer.",
        "The database server at {where} does not answer in time. Check that it runs and that no firewall is in between.",
    ),
    r"starting up|shutting down|not yet accepting|recovery mode": (
        "The database is starting or stopping.",
        "The database server at {where} is starting or stopping. Wait until it takes connections; its log says what it does.",
    ),
}
_SQLITE_FAILURES = {
    "unable to open database file": (
        "The database file cannot be opened.",
        "{path} cannot be opened. Make its folder, and let this user write to it.",
    ),
    "file is not a database": (
        "The database file cannot be opened.",
        "{path} is no SQLite database. Restore a backup, or name another file.",
    ),
    "database is locked": ("The database is locked.", "Another program holds {path}. Try again in a moment."),
}


def _format_servers(url: URL) -> str:
    hosts, ports = _split_hosts(url)
    return ", ".join(
        host if host.startswith("/") else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for host, port in zip(hosts, ports, strict=True)
    )


def _build_create_command(url: URL) -> str:
    hosts, ports = _split_hosts(url)
    owner = f" -O {url.username}" if url.username else ""
    return f"createdb -h {hosts[0]} -p {ports[0]} -U postgres -E UTF8 -T template0{owner} {url.database}"


def _split_hosts(url: URL) -> tuple[list[str], list[str]]:
    """Hosts and their ports; SQLAlchemy keeps multiple hosts in the query (`config.database_url`)."""
    hosts = str(url.query.get("host") or url.host or "localhost").split(",")
    ports = str(url.query.get("port") or url.port or "5432").split(",")
    return hosts, ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
