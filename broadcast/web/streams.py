"""The two streams: HTML cards for the inbox, JSON for programs. One opening, one hub, two wires.

`StreamResponse` hands gunicorn's plain socket to the hub and raises StopIteration, which gunicorn's async workers take as
"this connection is done": they close their copy, the greenlet ends, and the stream lives on in the hub. Where the server
keeps its socket (TLS, HTTP/2, the test client) the same response is an ordinary generator.
"""

import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent.socket
import structlog
from flask import Blueprint, Response, g, request

from broadcast.actions import notify
from broadcast.base.errors import Forbidden
from broadcast.domain import clock
from broadcast.store import inbox
from broadcast.streams import sse
from broadcast.streams.connection import Connection
from broadcast.streams.hub import HUB, Hub, Stale, TooMany
from broadcast.streams.opening import opening, read_start
from broadcast.streams.socket_transport import Sockets
from broadcast.streams.wsgi_transport import Generated
from broadcast.web.core import identity, limits
from broadcast.web.core.error_handlers import stream_refusal
from broadcast.web.core.identity import allow, me
from broadcast.worker.runtime import RUNTIME

blueprint = Blueprint("stream", __name__)
_log = structlog.get_logger(__name__)


class StreamResponse(Response):
    """A subscribed stream, opened when the server asks for it."""

    def __init__(self, hub: Hub, connection: Connection, sockets: Sockets | None):
        self._wire = Generated()
        super().__init__(self._wire.body(hub, connection), mimetype="text/event-stream")
        self.headers["X-Accel-Buffering"] = "no"
        self._connection, self._sockets = connection, sockets
        # the body ends the stream itself, but one that was never begun (HEAD, an early leaver) has no end
        self.call_on_close(lambda: hub.close(connection, "left"))

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        sock = environ.get("gunicorn.socket")
        takes_over = self._sockets is not None and environ["REQUEST_METHOD"] == "GET" and is_plain(sock)
        g.pop("subscribed", None)  # from here on the stream ends with its wire, or with this response
        if not takes_over or not self._connection.is_open:
            return super().__call__(environ, start_response)
        head = "".join(f"{name}: {value}\r\n" for name, value in self.get_wsgi_headers(environ))
        try:
            self._sockets.take_over(
                self._connection, sock, f"HTTP/1.1 200 OK\r\n{head}Connection: close\r\n\r\n".encode("latin-1")
            )
        except OSError as problem:  # this worker has no descriptor left, say: another may have
            _log.warning("stream.not_taken_over", problem=str(problem))
            self.response = [sse.refusal("BUSY")]
            return super().__call__(environ, start_response)
        raise StopIteration


@blueprint.teardown_app_request
def _end_unanswered(_problem: BaseException | None) -> None:
    """A stream that was subscribed, and whose response never came to be asked for: something failed in between."""
    if connection := g.pop("subscribed", None):
        HUB.current.close(connection, "failed to open")


def is_plain(sock: Any) -> bool:
    """True for a bare TCP or unix socket, whose bytes are the response's bytes; False for TLS and for none at all."""
    return type(sock) in (gevent.socket.socket, socket.socket)


@blueprint.get("/inbox/stream")
@allow("person")
def inbox_stream():
    return _open("html", label=request.args.get("label", ""))


@blueprint.get("/api/sse/connect")
@allow("person", embedded=True)
def connect():
    if request.args.get("userId", str(me().id)) != str(me().id):
        raise Forbidden("A stream can only be opened for yourself.")
    return _open("json", label=request.args.get("connectionId", ""))


@blueprint.post("/api/sse/disconnect")
@allow("person")
def disconnect():
    """Closes that stream if it is the caller's, in whichever worker it lives."""
    hub = HUB.current
    connection_id = request.args.get("connectionId", "")[:100]
    connection = hub.find(connection_id)
    if connection is None:
        notify.disconnect(me().id, connection_id)
    elif connection.viewer.user_id == me().id:
        hub.close(connection, "disconnected")
    return "", 204


def _open(representation: str, *, label: str) -> Response:
    if request.headers.get("Sec-Fetch-Site") not in (None, "same-origin", "none") and not me().origin:
        raise Forbidden("A stream cannot be opened from another site.")
    hub = HUB.current
    start = read_start(request.headers.get("Last-Event-ID") or request.args.get("after"), hub)
    for _ in range(3):
        who, now = me(), clock.now()
        try:
            connection = hub.subscribe(
                who.actor.viewer,
                representation=representation,
                session=who.session,
                address=limits.address(),
                label=label[:100],
                after=start.after,
                looked_up_at=g.hub_seq,
                now=now,
            )
            break
        except TooMany as refused:
            return stream_refusal(refused.event)
        except Stale:
            identity.look_again()
    else:
        return stream_refusal("BUSY")
    g.subscribed = connection
    if who.until:  # a stream outlives the session or the token by no more than a heartbeat
        connection.ends_at = min(connection.ends_at, time.monotonic() + (who.until - now).total_seconds())
    unread = inbox.unread(who.actor.viewer, now=now)
    connection.prelude = opening(hub, connection, start, unread=unread, now=now)
    return StreamResponse(hub, connection, RUNTIME.current.sockets)
