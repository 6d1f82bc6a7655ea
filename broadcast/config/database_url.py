"""DATABASE_URL: from the form of users and libpq to that of SQLAlchemy, and to the arguments of the driver.

    postgresql://user:password@host:5432/name?sslmode=require
    postgresql://user@first:5432,second:5432/name     the writable one of several servers, whichever that is now
    sqlite:////var/lib/broadcast/broadcast.sqlite3    an absolute path; with three slashes, below the working directory

Several hosts are libpq's form (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-MULTIPLE-HOSTS);
SQLAlchemy wants them as `?host=first,second&port=5432,5432`. Standard library only: the launcher uses this before
anything heavy is imported.
"""

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

_POSTGRESQL_URL = re.compile(
    r"(?:postgres|postgresql|postgresql\+psycopg)://(?:([^/?#]*)@)?([^/?#@]*)(?:/([^?#]*))?(?:\?(.*))?", re.S
)
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]*)(?::(\d*))?")
_DEFAULT_PORT = "5432"
_UNREADABLE_SERVER_SENTENCE = (
    "host and port cannot be read. Write postgresql://user:password@host:5432/name, "
    "with %40 for an @ in the password and %2F for a /."
)


def normalize_url(url: str) -> str:
    """Return the URL in SQLAlchemy's form. Raises ValueError with a sentence that says what is wrong with it."""
    if url.startswith("sqlite:"):
        return _normalize_sqlite_url(url)
    match = _POSTGRESQL_URL.fullmatch(url)
    if not match:
        raise ValueError("must begin with postgresql:// or sqlite:///.")
    credentials, servers, name, query = match.groups()
    options = parse_qsl(query or "", keep_blank_values=True)
    hosts, ports = _parse_servers(servers, options)
    options = [(key, value) for key, value in options if key not in ("host", "port")]
    if len(hosts) > 1 and "target_session_attrs" not in dict(options):
        options.append(("target_session_attrs", "read-write"))
    address = f"postgresql+psycopg://{_normalize_credentials(credentials)}"
    if len(hosts) == 1 and not hosts[0].startswith("/"):
        address += f"[{hosts[0]}]" if ":" in hosts[0] else hosts[0]
        address += f":{ports[0]}" if ports[0] else ""
    elif hosts:
        options = [("host", ",".join(hosts)), ("port", ",".join(port or _DEFAULT_PORT for port in ports)), *options]
    return f"{address}/{name or ''}{f'?{urlencode(options, quote_via=quote)}' if options else ''}"


def make_driver_arguments(uri: str) -> dict[str, Any]:
    """Arguments of psycopg's `connect` for a normalized PostgreSQL URL."""
    credentials, servers, name, query = _POSTGRESQL_URL.fullmatch(uri).groups()
    user, _, password = (credentials or "").partition(":")
    hosts, ports = _parse_servers(servers, [])
    address = {"host": ",".join(hosts), "port": ",".join(port or "" for port in ports), "dbname": unquote(name or "")}
    arguments = {"user": unquote(user), "password": unquote(password)} | address
    options = dict(parse_qsl(query or "", keep_blank_values=True))
    return {key: value for key, value in arguments.items() if value} | options


def get_sqlite_path(uri: str) -> Path:
    return Path(unquote(uri.removeprefix("sqlite:///")))


def make_sqlite_url(path: Path) -> str:
    """The normalized URL of a path. Quoted, because SQLAlchemy decodes the path."""
    return f"sqlite:///{quote(str(path.absolute()))}"


def _normalize_sqlite_url(url: str) -> str:
    path = url.removeprefix("sqlite:///")
    if path == url or path in ("", ":memory:"):
        raise ValueError(
            "a database in memory is lost at every stop, and no two workers share one. Write sqlite:////path/to/file."
        )
    if "?" in path or "#" in path:
        raise ValueError("write sqlite:////path/to/file without options, and %3F for a ? in the path, %23 for a #.")
    return make_sqlite_url(Path(unquote(path)))


def _parse_servers(text: str, options: list[tuple[str, str]]) -> tuple[list[str], list[str | None]]:
    """Hosts and their ports, from before the path or from the options (libpq's or SQLAlchemy's form)."""
    option_hosts = ",".join(value for key, value in options if key == "host")
    option_ports = [port for key, value in options if key == "port" for port in value.split(",")]
    hosts, ports = [], []
    for server in (option_hosts or text).split(",") if option_hosts or text else ():
        if server.startswith(("/", "%2F", "%2f")):  # a directory with the server's socket
            host, port = unquote(server), None
        elif server.count(":") > 1 and not server.startswith("["):  # a bare IPv6 address, as libpq accepts in options
            host, port = server, None
        else:
            match = _HOST_AND_PORT.fullmatch(server)
            if not match or not match[1] or not _is_port(match[2]):
                raise ValueError(_UNREADABLE_SERVER_SENTENCE)  # without the text: it may be part of the password
            host, port = match[1].strip("[]"), match[2] or None
        hosts.append(host)
        ports.append(port)
    if not option_ports:
        return hosts, ports
    if not all(map(_is_port, option_ports)):
        raise ValueError("a port must be a number from 1 to 65535.")
    option_ports = option_ports * len(hosts) if len(option_ports) == 1 else option_ports
    if len(option_ports) != len(hosts):
        raise ValueError("name as many ports as hosts, or one port for all.")
    return hosts, [port or host_port for port, host_port in zip(option_ports, ports, strict=True)]


def _is_port(text: str | None) -> bool:
    return not text or text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536


def _normalize_credentials(text: str | None) -> str:
    """User and password, percent-encoded: some characters that libpq accepts are separators for SQLAlchemy."""
    if not text:
        return ""
    user, colon, password = text.partition(":")
    return f"{quote(unquote(user), safe='')}{colon}{quote(unquote(password), safe='')}@"
