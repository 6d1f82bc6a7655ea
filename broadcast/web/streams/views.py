"""The two stream endpoints in Flask: HTML cards for the inbox, JSON for programs, over either transport.

`StreamResponse` hands gunicorn's plain socket to the hub and raises StopIteration, which gunicorn's async workers treat
as a finished connection: they close their copy, the greenlet ends, and the stream continues in the hub. Where the
server keeps its socket (TLS, HTTP/2, the test client) the same response is an ordinary generator.
"""

import socket
from collections.abc import Callable, Iterable
from typing import Any

import gevent.socket
import structlog
from flask import Blueprint, Response, g, request

from broadcast.actions import notify
from broadcast.streams import sse
from broadcast.streams.connection import Connection
from broadcast.streams.hub import HUB, Hub, StreamLimitExceeded
from broadcast.streams.socket_transport import SocketTransport
from broadcast.streams.wsgi_transport import WsgiTransport
from broadcast.web.core import identity, limits
from broadcast.web.core.authentication import Identity
from broadcast.web.core.error_handlers import make_stream_refusal
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.streams.stream_request import API_PATH, INBOX_PATH, StreamRequest
from broadcast.worker.runtime import RUNTIME

blueprint = Blueprint("stream", __name__)
_log = structlog.get_logger(__name__)


class StreamResponse(Response):
    """A subscribed stream, opened when the server iterates the response."""

    def __init__(self, hub: Hub, connection: Connection, socket_transport: SocketTransport | None):
        self._transport = WsgiTransport()
        super().__init__(self._transport.generate_body(hub, connection), mimetype="text/event-stream")
        self.headers.update(make_stream_headers())
        self._connection, self._socket_transport = connection, socket_transport
        # the body ends the stream, but a body that was never started (HEAD, early disconnect) does not
        self.call_on_close(lambda: hub.close(connection, "left"))

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        sock = environ.get("gunicorn.socket")
        may_detach = self._socket_transport is not None and environ["REQUEST_METHOD"] == "GET" and is_plain_socket(sock)
        g.pop("subscribed", None)  # from here on the transport or this response ends the stream
        if not may_detach or not self._connection.is_open:
            return super().__call__(environ, start_response)
        try:
            self._socket_transport.adopt(self._connection, sock, encode_response_head(self, environ))
        except OSError as problem:  # for example no file descriptor left in this worker; another may have one
            _log.warning("stream.not_taken_over", problem=str(problem))
            self.response = [sse.encode_refusal("BUSY")]
            return super().__call__(environ, start_response)
        raise StopIteration


def make_stream_headers() -> dict[str, str]:
    return {"X-Accel-Buffering": "no"}  # nginx would hold the stream back


def encode_response_head(response: Response, environ: dict[str, Any]) -> bytes:
    """The head of a response whose socket the server lets go of."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in response.get_wsgi_headers(environ))
    return f"HTTP/1.1 {response.status}\r\n{fields}Connection: close\r\n\r\n".encode("latin-1")


@blueprint.teardown_app_request
def _close_unanswered(_problem: BaseException | None) -> None:
    """Close a stream that was subscribed, but whose response never started because of an error."""
    if connection := g.pop("subscribed", None):
        HUB.current.close(connection, "failed to open")


def is_plain_socket(sock: Any) -> bool:
    """True for a bare TCP or unix socket, whose bytes are the response's bytes; False for TLS or no socket."""
    return type(sock) in (gevent.socket.socket, socket.socket)


@blueprint.get(INBOX_PATH)
@allow("person")
def inbox_stream():
    return _open_stream()


@blueprint.get(API_PATH)
@allow("person", may_be_embedded=True)
def connect():
    return _open_stream()


@blueprint.post("/api/sse/disconnect")
@allow("person")
def disconnect():
    """Close that stream if it is the caller's, in any worker."""
    hub = HUB.current
    connection_id = request.args.get("connectionId", "")[:100]
    connection = hub.find(connection_id)
    if connection is None:
        notify.request_disconnect(current_identity().id, connection_id)
    elif connection.viewer.user_id == current_identity().id:
        hub.close(connection, "disconnected")
    return "", 204


def _open_stream() -> Response:
    stream_request = StreamRequest(
        request.path,
        request.args,
        limits.get_remote_address(),
        request.headers.get("Last-Event-ID"),
        request.headers.get("Sec-Fetch-Site"),
    )
    stream_request.check(current_identity())
    try:
        connection = g.subscribed = stream_request.open(_read_identity)
    except StreamLimitExceeded as problem:
        return make_stream_refusal(problem.event_name)
    return StreamResponse(HUB.current, connection, RUNTIME.current.socket_transport)


def _read_identity(is_retry: bool) -> tuple[Identity, int]:
    if is_retry:
        identity.recheck_access()
    return current_identity(), g.hub_seq
