"""Single requests for a stream on the direct path and through Flask, with the answers as bytes."""

import re
import socket
from dataclasses import dataclass
from typing import Any

from flask import Flask
from werkzeug.test import EnvironBuilder, run_wsgi_app

from broadcast.worker.runtime import RUNTIME
from tests.support.routes import make_bearer_headers
from tests.support.stream_reader import get_socket_transport
from tests.support.users import BrowserClient

CHANGING_HEADERS = {"X-Request-ID", "Set-Cookie"}


@dataclass
class Answer:
    """`unread` is what the server has left of the request in its socket."""

    text: str
    unread: bytes = b""

    @property
    def status(self) -> str:
        return self.text.partition("\r\n")[0]

    @property
    def headers(self) -> dict[str, str]:
        lines = self.text.partition("\r\n\r\n")[0].split("\r\n")[1:]
        return {name: value for name, value in (line.split(": ", 1) for line in lines) if name not in CHANGING_HEADERS}

    @property
    def events(self) -> list[str]:
        return re.findall(r"^event: (\w+)$", self.text, re.MULTILINE)


def receive(sock: socket.socket) -> bytes:
    sock.setblocking(False)
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return b""


def ask_flask(
    app: Flask, headers: dict[str, str], *, path: str = "/api/sse/connect", peer: str = "127.0.0.1"
) -> Answer:
    """The same request through WSGI, with a socket to hand over."""
    get_socket_transport(app)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environ = EnvironBuilder(path=path, base_url="http://localhost", headers=headers).get_environ()
        environ |= {"gunicorn.socket": ours, "REMOTE_ADDR": peer}
        try:
            body, status, head = run_wsgi_app(app, environ)
        except StopIteration:
            return Answer(receive(theirs).decode())
        fields = "".join(f"{name}: {value}\r\n" for name, value in head)
        return Answer(f"HTTP/1.1 {status}\r\n{fields}Connection: close\r\n\r\n{b''.join(body).decode()}")


def bearer(app: Flask, username: str = "bob", *scopes: str) -> dict[str, str]:
    return make_bearer_headers(app, username, list(scopes or ["inbox"]))


def cookie(app: Flask, username: str = "bob", *, without: str = "", **changes: str) -> dict[str, str]:
    http = BrowserClient.for_user(app, username).http
    with http.session_transaction() as session:
        session.update(changes)
        session.pop(without, None)
    return {"Cookie": f"broadcast={http.get_cookie('broadcast').value}"}


class Visitor:
    """Asks the direct path. Its sockets stay open until `close`."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def __call__(
        self, app: Flask, headers: dict[str, str], *, path: str = "/api/sse/connect", peer: Any = ("127.0.0.1", 1)
    ) -> Answer | None:
        """The answer; None if the request is left to Flask, unread."""
        get_socket_transport(app)
        ours, theirs = socket.socketpair()
        self._sockets += (ours, theirs)
        fields = [f"{name}: {value}" for name, value in ({"Host": "localhost"} | headers).items()]
        request = "\r\n".join([f"GET {path} HTTP/1.1", *fields, "", ""]).encode()
        theirs.sendall(request)
        if not RUNTIME.of(app).direct_streams.try_answer(request, ours, peer):
            assert receive(theirs) == b"", "nothing is written for a request that is left to Flask"
            assert receive(ours) == request
            return None
        return Answer(receive(theirs).decode(), receive(ours))

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
