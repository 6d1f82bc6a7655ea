"""The two ways a stream can reach a client, behind one small door, so that one suite runs on both."""

import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import gevent

from broadcast.domain.audience import Audience, Everyone, Viewer
from broadcast.domain.events import Cursor, Event, EventType, encode
from broadcast.streams import sse
from broadcast.streams.connection import Connection
from broadcast.streams.hub import Hub, Limits
from broadcast.streams.socket_transport import Sockets
from broadcast.streams.wsgi_transport import Generated

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def make_hub(**limits) -> Hub:
    hub = Hub({"json": sse.encode_json}, Limits(**limits))
    hub.start(Cursor("e", 0))
    return hub


def message(seq: int, audience: Audience = Everyone(), *, text: str = "", epoch: str = "e") -> Event:  # noqa: B008 - frozen
    return Event(seq, epoch, EventType.MESSAGE, seq, audience, encode({"id": seq, "text": text}), NOW)


def subscribe(hub: Hub, viewer: Viewer, **changes) -> Connection:
    options = {"representation": "json", "session": f"session:{viewer.user_id}", "address": "127.0.0.1"}
    return hub.subscribe(viewer, **options | {"looked_up_at": hub.head.seq, "now": NOW} | changes)


def eventually(condition: Callable[[], object], *, seconds: float = 5) -> None:
    """Let the hub run until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        gevent.sleep(0.002)


class Client:
    """Reads a stream. `paused` is a client that does not read; `leave` one that goes."""

    def __init__(self) -> None:
        self.received = b""
        self.ended = False
        self.paused = False

    def ids(self) -> list[int]:
        """Numbers of the messages received whole, in order."""
        whole = self.received[: self.received.rfind(b"\n\n") + 1]
        return [int(line.partition(b"-")[2]) for line in whole.splitlines() if line.startswith(b"id: ")]


class GeneratorClient(Client):
    """Pulls the body as a WSGI server does."""

    def __init__(self, hub: Hub, connection: Connection):
        super().__init__()
        self._body = Generated().body(hub, connection)
        self._greenlet = gevent.spawn(self._pull)
        gevent.sleep(0)

    def _pull(self) -> None:
        for chunk in self._body:
            self.received += chunk
            while self.paused:
                gevent.sleep(0.002)
        self.ended = True

    def leave(self) -> None:
        """What a server does when a write fails: it closes the body."""
        self._greenlet.kill()
        self._body.close()

    close = leave


class SocketClient(Client):
    """The other end of a TCP connection whose server end the hub took over."""

    HEAD = b"HTTP/1.1 200 OK\r\n\r\n"

    def __init__(self, hub: Hub, connection: Connection, sockets: Sockets):
        super().__init__()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            self.sock = socket.socket()
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            self.sock.connect(listener.getsockname())
            server_end, _ = listener.accept()
        sockets.take_over(connection, server_end, self.HEAD)
        server_end.close()
        self.sock.setblocking(False)
        self._greenlet = gevent.spawn(self._pull)
        gevent.sleep(0)

    def _pull(self) -> None:
        while not self.ended:
            try:
                data = b"" if self.paused else self.sock.recv(65536)
                self.ended = not data and not self.paused
                self.received += data
            except BlockingIOError:
                pass
            except OSError:
                self.ended = True
            self.received = self.received.removeprefix(self.HEAD)
            gevent.sleep(0.001)

    def leave(self) -> None:
        self._greenlet.kill()
        self.sock.close()

    close = leave


def opener(kind: str, hub: Hub) -> Iterator[Callable[[Connection], Client]]:
    """Gives `open(connection)` on the wire of this kind, and closes all its clients afterwards."""
    sockets = Sockets(hub) if kind == "socket" else None
    clients: list[Client] = []

    def open(connection: Connection) -> Client:
        client = SocketClient(hub, connection, sockets) if sockets else GeneratorClient(hub, connection)
        clients.append(client)
        return client

    yield open
    for client in clients:
        client.close()
    for connection in hub.connections:
        hub.close(connection, "test over")
    if sockets:
        sockets.close()
