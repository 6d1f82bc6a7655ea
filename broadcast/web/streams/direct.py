"""Opens streams before WSGI: from the first bytes of a connection to the hub, without an environ or a Flask request.

What is recognized is judged by the functions that judge it in Flask. A request that would be refused for its user is
left to Flask too, bytes unread, which then says why. It costs half as much as through gunicorn and Flask
(`docs/why.md`), and thousands of clients return in the same seconds.
"""

import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache, partial
from http import HTTPStatus
from socket import socket
from typing import Any
from urllib.parse import parse_qsl

import flask
import structlog
from flask import Flask, Response, g
from itsdangerous import BadSignature
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.http import parse_cookie, parse_list_header
from werkzeug.sansio.utils import get_host

from broadcast.base import correlation
from broadcast.base.errors import BroadcastError, NotSignedIn
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.store import credentials
from broadcast.store.fast.credential_cache import CREDENTIAL_CACHE
from broadcast.streams.hub import HUB, StreamLimitExceeded
from broadcast.streams.sse import UnloggedEvent
from broadcast.web.auth.proxy import PROXY_SIGN_IN
from broadcast.web.core import identity, limits, request_id
from broadcast.web.core.authentication import (
    CredentialSource,
    Identity,
    authenticate_bearer,
    authenticate_session,
    read_bearer_token,
)
from broadcast.web.core.bounded_request import MAX_QUERY_PARAMETERS
from broadcast.web.core.error_handlers import make_stream_refusal
from broadcast.web.core.stream_admission import STREAM_ADMISSION
from broadcast.web.streams.request_head import RequestHead, parse_request_head
from broadcast.web.streams.stream_request import ENDPOINTS, StreamRequest
from broadcast.web.streams.views import encode_response_head, make_stream_headers
from broadcast.worker.runtime import RUNTIME

_log = structlog.get_logger(__name__)


class DirectStreams:
    """One application's streams that open before WSGI."""

    def __init__(self, app: Flask):
        self._app = app
        self._heads: dict[tuple, list[bytes]] = {}  # of responses, in two parts: the request's id goes between them
        self._cookie_serializer = app.session_interface.get_signing_serializer(app)

    def try_answer(self, data: bytes, sock: socket, peer: Any) -> bool:
        """Open the stream that `data`, not yet read from `sock`, asks for, or tell its client when to return.

        `peer` is the socket's peer address. False: not a matter for this path. Then nothing was read or written. The
        caller closes its copy of the socket.
        """
        head = parse_request_head(data)
        if head is None:
            return False
        with self._app.app_context():
            try:
                answer = self._open(head, sock, _to_text(peer))
            except (BroadcastError, HTTPException, OSError):
                return False  # Flask's path comes to the same, and tells the client
            except Exception:
                _log.exception("stream.direct_failed")
                return False
            with suppress(OSError):  # the client has left
                sock.recv(len(data))  # closing a socket with unread bytes would reset the connection
                sock.sendall(answer)
        return True

    def _open(self, head: RequestHead, sock: socket, peer: str) -> bytes:
        """Open the stream; return what is still to be sent: nothing, or a refusal."""
        began, settings = time.monotonic(), SETTINGS.current
        correlation.set_current_id(request_id.choose_id(head.headers.get("x-request-id", ""), settings))
        request = _read_request(head, peer, self._app.config["TRUSTED_HOSTS"], settings.trusted_proxy_hops)
        caller = None
        with STREAM_ADMISSION.current.slot() as is_admitted:
            if not is_admitted:
                return self._refuse(UnloggedEvent.BUSY, request, caller)
            read_identity = partial(self._read_identity, head, peer)
            caller, as_of_seq = read_identity(is_retry=False)
            request.check(caller)
            if not limits.may_open_stream(caller.id, request.address):
                return self._refuse(UnloggedEvent.BUSY, request, caller)
            response_head = self._build_head(request, caller)  # first, as nobody would close a stream that it fails for
            try:
                connection = request.open(
                    lambda is_retry: read_identity(is_retry=True) if is_retry else (caller, as_of_seq)
                )
            except StreamLimitExceeded as problem:
                return self._refuse(problem.event_name, request, caller)
            RUNTIME.current.socket_transport.adopt(connection, sock, response_head)
        request_id.log_request("GET", request.path, HTTPStatus.OK, time.monotonic() - began, caller.id)
        return b""

    def _read_identity(self, head: RequestHead, peer: str, *, is_retry: bool) -> tuple[Identity, int]:
        """Who asks, and the hub's seq before that was read. Raises NotSignedIn or Forbidden."""
        as_of_seq = HUB.current.seq
        caller = self._authenticate(head, peer, credentials if is_retry else CREDENTIAL_CACHE.current)
        endpoint = ENDPOINTS[head.path]
        identity.check_rule(self._app.view_functions[endpoint].rule, caller, endpoint=endpoint)
        return caller, as_of_seq

    def _authenticate(self, head: RequestHead, peer: str, source: CredentialSource) -> Identity:
        now, headers = clock.now(), head.headers
        token = read_bearer_token(headers.get("authorization", ""))
        if token is not None:
            return authenticate_bearer(token, origin=headers.get("origin"), source=source, now=now)
        session = self._read_session(headers.get("cookie", ""))
        if "token" not in session or "csrf_token" not in session:  # Flask writes one into the cookie
            raise NotSignedIn
        caller = authenticate_session(session["token"], source=source, now=now)
        proxy = PROXY_SIGN_IN.current
        if caller is not None and proxy is not None:
            username = proxy.accept_username(headers.get(proxy.user_header.lower(), ""), peer)
            if username != caller.username and (username is not None or session.get("by_proxy")):
                raise NotSignedIn  # Flask ends the session
        if caller is None:
            raise NotSignedIn
        return caller

    def _read_session(self, cookies: str) -> Mapping[str, Any]:
        """The session's cookie, as `flask.sessions.SecureCookieSessionInterface.open_session` reads it."""
        value = parse_cookie(cookies).get(self._app.config["SESSION_COOKIE_NAME"])
        max_age = int(self._app.permanent_session_lifetime.total_seconds())
        try:
            return self._cookie_serializer.loads(value, max_age=max_age) if value else {}
        except BadSignature:
            return {}

    def _build_head(self, request: StreamRequest, caller: Identity) -> bytes:
        """The response's head, as Flask's path makes it."""
        key = (request.path, caller.session_id is None, caller.origin)
        if key not in self._heads:
            current_id, placeholder = correlation.current_id(), secrets.token_hex()
            correlation.set_current_id(placeholder)
            response = Response(iter(()), mimetype="text/event-stream", headers=make_stream_headers())
            self._heads[key] = self._encode_head(response, request, caller).split(placeholder.encode())
            correlation.set_current_id(current_id)
        return correlation.current_id().encode().join(self._heads[key])

    def _refuse(self, event_name: str, request: StreamRequest, caller: Identity | None) -> bytes:
        response = make_stream_refusal(event_name)
        return self._encode_head(response, request, caller) + response.get_data()

    def _encode_head(self, response: Response, request: StreamRequest, caller: Identity | None) -> bytes:
        """What Flask's hooks make of a response to this user."""
        with self._app.test_request_context(request.path):
            g.identity = caller
            if caller and caller.origin:
                g.embedded_in = flask.request.environ["HTTP_ORIGIN"] = caller.origin
            if caller and caller.session_id:
                flask.session.get("token")  # so that the response varies by cookie
            return encode_response_head(self._app.process_response(response), flask.request.environ)


def _read_request(head: RequestHead, peer: str, trusted_hosts: list[str] | None, proxy_hops: int) -> StreamRequest:
    """Raises an HTTPException for a host that is not ours, or for too many parameters."""
    _check_host(head.headers["host"], tuple(trusted_hosts) if trusted_hosts else None)
    if head.query.count("&") >= MAX_QUERY_PARAMETERS:
        raise BadRequest
    forwarded_for = parse_list_header(head.headers.get("x-forwarded-for", "")) if proxy_hops else []
    address = forwarded_for[-proxy_hops] if len(forwarded_for) >= proxy_hops > 0 else peer  # as ProxyFix does
    pairs = parse_qsl(head.query, keep_blank_values=True, errors="werkzeug.url_quote")  # as werkzeug's `request.args`
    return StreamRequest(
        head.path,
        dict(reversed(pairs)),  # the first of several counts
        address or limits.UNKNOWN_ADDRESS,
        head.headers.get("last-event-id"),
        head.headers.get("sec-fetch-site"),
    )


@lru_cache(64)
def _check_host(host: str, trusted_hosts: tuple[str, ...] | None) -> None:
    """Raises SecurityError, as `request.host` does."""
    get_host("http", host, None, trusted_hosts)


def _to_text(peer: Any) -> str:
    """The address as in REMOTE_ADDR: gunicorn's rule for TCP and unix sockets."""
    return peer[0] if isinstance(peer, tuple) else peer.decode() if isinstance(peer, bytes) else peer
