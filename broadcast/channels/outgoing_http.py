"""POST requests to addresses that users have typed, without giving them a way into the internal network.

The host name is resolved once, and the connection goes to an address that was checked: there is no second look-up that
could answer differently. Redirects are not followed, and no proxy is used.

Many requests to the same host share connections through a `ConnectionPool`.
"""

import io
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

import gevent
from gevent import socket, ssl

from broadcast.base.cooperative import yield_to_loop
from broadcast.domain.outgoing_url import DEFAULT_PORTS, AddressRefused, Target, parse_url

TIMEOUT_SECONDS = 20.0
_CONNECT_TIMEOUT_SECONDS = 5.0  # for each address of the host
_MAX_ADDRESSES = 4
_MAX_IDLE_SECONDS = 10.0
_MAX_ANSWER_BYTES = 64 * 1024  # with its headers
_NAT64, _6TO4, _GLOBAL_UNICAST = IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16"), IPv6Network("2000::/3")
_6TO4_RELAYS = IPv4Network("192.88.99.0/24")


class RequestFailed(Exception):
    """There is no answer: it may work later. The message is a sentence for users."""


class Response(NamedTuple):
    """The names of `headers` are in lower case. `body` is cut where the answer is too long."""

    status: int
    headers: dict[str, str]
    body: bytes


class ConnectionPool:
    """Connections that have been used, kept for some seconds. They lead to addresses that were checked."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str, int], list[tuple[socket.socket, float]]] = {}

    def take(self, target: Target) -> socket.socket | None:
        """A connection to this host, if there is one. The server may have closed it meanwhile."""
        idle = self._idle.get(target[:3], [])
        while idle:
            connection, used_at = idle.pop()
            if time.monotonic() - used_at < _MAX_IDLE_SECONDS:
                return connection
            connection.close()
        return None

    def give_back(self, target: Target, connection: socket.socket) -> None:
        self._idle.setdefault(target[:3], []).append((connection, time.monotonic()))


def post(
    url: str,
    *,
    body: bytes,
    headers: Mapping[str, str],
    may_be_private: bool = False,
    timeout_seconds: float = TIMEOUT_SECONDS,
    pool: ConnectionPool | None = None,
) -> Response:
    """Send one request and read its answer, whatever its status, in `timeout_seconds` altogether.

    `may_be_private` allows plain HTTP, and addresses of the internal network. With `pool`, a request whose connection
    was closed meanwhile is sent again, so that it may arrive twice. Raises AddressRefused, RequestFailed.
    """
    target = parse_url(url, may_be_private=may_be_private)
    with gevent.Timeout(timeout_seconds, False):
        if kept := pool and pool.take(target):
            with suppress(OSError, HTTPException):
                return _exchange(target, kept, body, headers, pool)
        addresses = _resolve(target, may_be_private=may_be_private)
        try:
            return _exchange(target, _connect(target, addresses), body, headers, pool)
        except ssl.SSLCertVerificationError as problem:
            raise RequestFailed(
                f"The certificate of {target.host} is not valid: {problem.verify_message}."
            ) from problem
        except HTTPException as problem:
            raise RequestFailed(f"{target.host} did not answer in HTTP.") from problem
        except OSError as problem:
            reason = problem.strerror or str(problem) or type(problem).__name__
            raise RequestFailed(f"{target.host} cannot be reached: {reason}.") from problem
    raise RequestFailed(f"{target.host} did not answer within {timeout_seconds:g} seconds.")


def load_certificates() -> None:
    """Read the certificates of trusted issuers, which takes 60 ms: at the start of a worker, not while it serves."""
    _make_tls_context()


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the public internet. What IPv6 embeds is judged by the IPv4 address that it reaches."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        return address.is_global and address in _GLOBAL_UNICAST and address not in _6TO4
    return address.is_global and not address.is_multicast and address not in _6TO4_RELAYS


def _resolve(target: Target, *, may_be_private: bool) -> list[str]:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as problem:
        raise RequestFailed(f"The host {target.host} cannot be found: {problem.strerror or problem}.") from problem
    except UnicodeError:
        raise AddressRefused("This is not an address, as its host is not valid.") from None
    addresses = list(dict.fromkeys(str(address) for *_, (address, *_) in found))
    if not may_be_private and any(not is_public(ip_address(address)) for address in addresses):
        raise AddressRefused(f"{target.host} is an address of an internal network, where nothing is sent to.")
    return addresses[:_MAX_ADDRESSES]


def _connect(target: Target, addresses: list[str]) -> socket.socket:
    """Connect to the first address that answers. Raises OSError."""
    problem: OSError = OSError("it has no address")
    for address in addresses:
        try:
            connection = socket.create_connection((address, target.port), timeout=_CONNECT_TIMEOUT_SECONDS)
        except OSError as refused:
            problem = refused
            continue
        connection.settimeout(None)  # the whole request has a limit
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # head and body are two writes
        if target.scheme == "http":
            return connection
        try:
            return _make_tls_context().wrap_socket(connection, server_hostname=target.host)
        except BaseException:
            connection.close()
            raise
    raise problem


@cache
def _make_tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _exchange(
    target: Target,
    connection: socket.socket,
    body: bytes,
    headers: Mapping[str, str],
    pool: ConnectionPool | None,
) -> Response:
    """Send the request and read the answer. The connection is closed, or goes to the pool if it can be used again."""
    can_be_kept = False
    try:
        client = HTTPConnection(target.host, target.port)
        client.default_port = DEFAULT_PORTS[target.scheme]  # which the header Host leaves out
        client.sock = connection
        client.request("POST", target.path, body, ({} if pool else {"Connection": "close"}) | dict(headers))
        answer, content = HTTPResponse(_BoundedReader(connection), method="POST"), b""
        answer.begin()
        with suppress(IncompleteRead):  # cut
            while part := answer.read1(_MAX_ANSWER_BYTES):
                content += part
        is_whole = answer.getheader("Content-Length") == str(len(content))
        can_be_kept = pool is not None and is_whole and not answer.will_close
        return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)
    finally:
        if can_be_kept:
            pool.give_back(target, connection)
        else:
            connection.close()


class _BoundedReader(io.RawIOBase):
    """Reads a connection for http.client, to its end or for _MAX_ANSWER_BYTES. Lets other greenlets run at each read: a
    fast server could otherwise keep a worker busy, as with interim answers without end.
    """

    def __init__(self, connection: socket.socket):
        self._connection, self._left = connection, _MAX_ANSWER_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        yield_to_loop()
        count = self._connection.recv_into(buffer, min(len(buffer), self._left)) if self._left else 0
        self._left -= count
        return count

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)
