"""Reads a stream of an application in this process, on each of the paths that a request for one can take.

generator   through WSGI; the response is a generator, as behind TLS or HTTP/2
handed over through WSGI; the response hands its socket to the hub, as under gunicorn
direct      before WSGI, by the request's bytes; what that path leaves takes the one before, as in a worker
"""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder

from broadcast.streams.socket_transport import SocketTransport
from broadcast.worker.runtime import RUNTIME

STREAM_PATHS = ("generator", "handed over", "direct")
_PEER = ("127.0.0.1", 1)


@dataclass(frozen=True, slots=True)
class Frame:
    event: str
    data: Any
    id: str | None


@dataclass(frozen=True, slots=True)
class SocketResponse:
    """A response read from a socket, up to its body."""

    status: str
    headers: Headers

    @property
    def status_code(self) -> int:
        return int(self.status.split()[0])

    @property
    def mimetype(self) -> str:
        return self.headers["Content-Type"].partition(";")[0]


class StreamReader:
    """Reads frame by frame. Fails if a frame never comes: nothing else runs. `path_taken` is one of STREAM_PATHS."""

    default_path = "generator"
    transports: list[SocketTransport] = []  # made for the applications of a test

    def __init__(self, http: FlaskClient, path: str = "/api/sse/connect", **options: Any):
        self._is_json = path.startswith("/api/")
        self._http, self.path_taken = http, self.default_path
        self._server, self._client = None, None
        builder = EnvironBuilder(path=path, base_url="http://localhost", **options)
        if self.default_path == "generator":
            self._open_generator(path, options)
        elif self.default_path == "handed over" or not self._open_directly(builder.get_environ()):
            self._open_handed_over(path, options)
        assert self.response.mimetype == "text/event-stream", self.response.status
        self._frames = self._read()

    def next_frame(self) -> Frame | None:
        """Return the next frame, None at the end of the stream."""
        return next(self._frames, None)

    def read_until(self, event: str) -> list[Frame]:
        """Return every frame up to and including the first `event`."""
        frames: list[Frame] = []
        while not frames or frames[-1].event != event:
            frame = self.next_frame()
            assert frame is not None, f"the stream ended after {frames} without {event}"
            frames.append(frame)
        return frames

    def close(self) -> None:
        if self._client is None:
            self.response.close()
            return
        self._client.close()
        get_socket_transport(self._http.application)._handle_ready()

    def _open_generator(self, path: str, options: dict[str, Any]) -> None:
        self.path_taken = "generator"
        self.response = self._http.get(path, buffered=False, **options)
        self._chunks = iter(self.response.response)

    def _open_handed_over(self, path: str, options: dict[str, Any]) -> None:
        get_socket_transport(self._http.application)
        self._make_sockets()
        environ = options.pop("environ_overrides", {}) | {"gunicorn.socket": self._server}
        try:
            self.response = self._http.get(path, buffered=False, environ_overrides=environ, **options)
        except StopIteration:  # so that gunicorn lets go of the socket
            self.path_taken = "handed over"
            self._server.close()
            self._read_head()
        else:  # refused
            self._close_sockets()
            self._chunks = iter(self.response.response)

    def _open_directly(self, environ: dict[str, Any]) -> bool:
        app = self._http.application
        get_socket_transport(app)
        self._http._add_cookies_to_wsgi(environ)
        self._make_sockets()
        request = format_request(environ)
        self._client.sendall(request)
        if not RUNTIME.of(app).direct_streams.try_answer(request, self._server, _PEER):
            self._close_sockets()
            return False
        self.path_taken = "direct"
        self._server.close()
        self._read_head()
        return True

    def _make_sockets(self) -> None:
        self._server, self._client = socket.socketpair()
        self._client.setblocking(False)

    def _close_sockets(self) -> None:
        self._server.close()
        self._client.close()
        self._server = self._client = None

    def _read_head(self) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._client.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = Headers([tuple(line.split(": ", 1)) for line in lines])
        self.response = SocketResponse(first.removeprefix("HTTP/1.1 "), headers)
        self._chunks = self._receive(body)

    def _receive(self, received: bytes) -> Iterator[bytes]:
        """Whole frames, until the server closes."""
        while True:
            end = received.rfind(b"\n\n") + 2
            if end >= 2:
                yield received[:end]
                received = received[end:]
            with suppress(ConnectionResetError):
                more = self._client.recv(65536)  # raises BlockingIOError for a frame that never comes
                received += more
                if more:
                    continue
            return

    def _read(self) -> Iterator[Frame]:
        for chunk in self._chunks:
            for block in chunk.split(b"\n\n"):
                fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if ": " in line)
                if "event" in fields:
                    data = "\n".join(ln[6:] for ln in block.decode().split("\n") if ln.startswith("data: "))
                    is_json = self._is_json or data.startswith("{")
                    yield Frame(fields["event"], json.loads(data) if is_json else data, fields.get("id"))


def get_socket_transport(app: Flask) -> SocketTransport:
    """The application's socket transport; made here, as no worker runs. The test closes what is in `transports`."""
    runtime = RUNTIME.of(app)
    if runtime.socket_transport is None:
        runtime.socket_transport = SocketTransport(runtime.hub)
        StreamReader.transports.append(runtime.socket_transport)
    return runtime.socket_transport


def format_request(environ: dict[str, Any]) -> bytes:
    """The bytes of a GET as a client sends them."""
    query = environ["QUERY_STRING"]
    lines = [f"GET {environ['PATH_INFO']}{'?' if query else ''}{query} HTTP/1.1"]
    lines += [
        f"{name[5:].replace('_', '-').title()}: {value}" for name, value in environ.items() if name.startswith("HTTP_")
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
