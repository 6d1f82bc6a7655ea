"""One interface for both transports, so that the same tests run on each."""

import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import gevent

from broadcast.domain.audience import Audience, EveryoneAudience, Viewer
from broadcast.domain.events import Cursor, Event, EventType, encode_compact_json
from broadcast.streams import sse
from broadcast.streams.connection import Connection
from broadcast.streams.hub import Hub, StreamLimits
from broadcast.streams.socket_transport import SocketTransport
from broadcast.streams.wsgi_transport import WsgiTransport

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def make_hub(**limits) -> Hub:
    hub = Hub({"json": sse.encode_event_json}, StreamLimits(**limits))
    hub.start(Cursor("e", 0))
    return hub


def make_message_event(seq: int, audience: Audience = EveryoneAudience(), *, text: str = "", epoch: str = "e") -> Event:  # noqa: B008 - frozen
    return Event(seq, epoch, EventType.MESSAGE, seq, audience, encode_compact_json({"id": seq, "text": text}), NOW)


def subscribe(hub: Hub, viewer: Viewer, **changes) -> Connection:
    options = {"representation": "json", "session": f"session:{viewer.user_id}", "address": "127.0.0.1"}
    return hub.subscribe(viewer, **options | {"viewer_as_of_seq": hub.head.seq, "now": NOW} | changes)


def wait_until(condition: Callable[[], object], *, seconds: float = 25) -> None:
    """Let other greenlets run until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        gevent.sleep(0.002)


class HubClient:
    """Reads a stream. `is_paused` stops reading; `disconnect` closes the connection."""

    def __init__(self) -> None:
        self.received = b""
        self.has_ended = False
        self.is_paused = False

    def get_message_ids(self) -> list[int]:
        """Ids of the messages received completely, in order."""
        complete = self.received[: self.received.rfind(b"\n\n") + 1]
        return [int(line.partition(b"-")[2]) for line in complete.splitlines() if line.startswith(b"id: ")]


class WsgiClient(HubClient):
    """Iterates the response body as a WSGI server does."""

    def __init__(self, hub: Hub, connection: Connection):
        super().__init__()
        self._body = WsgiTransport().generate_body(hub, connection)
        self._greenlet = gevent.spawn(self._read_body)
        gevent.sleep(0)

    def _read_body(self) -> None:
        for chunk in self._body:
            self.received += chunk
            while self.is_paused:
                gevent.sleep(0.002)
        self.has_ended = True

    def disconnect(self) -> None:
        """Close the body, as a server does when a write fails."""
        self._greenlet.kill()
        self._body.close()

    close = disconnect


class SocketClient(HubClient):
    """The client end of a TCP connection whose server end the hub adopted."""

    RESPONSE_HEAD = b"HTTP/1.1 200 OK\r\n\r\n"

    def __init__(self, hub: Hub, connection: Connection, transport: SocketTransport):
        super().__init__()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            self.sock = socket.socket()
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            self.sock.connect(listener.getsockname())
            server_end, _ = listener.accept()
        transport.adopt(connection, server_end, self.RESPONSE_HEAD)
        server_end.close()
        self.sock.setblocking(False)
        self._greenlet = gevent.spawn(self._read_socket)
        gevent.sleep(0)

    def _read_socket(self) -> None:
        while not self.has_ended:
            try:
                data = b"" if self.is_paused else self.sock.recv(65536)
                self.has_ended = not data and not self.is_paused
                self.received += data
            except BlockingIOError:
                pass
            except OSError:
                self.has_ended = True
            self.received = self.received.removeprefix(self.RESPONSE_HEAD)
            gevent.sleep(0.001)

    def disconnect(self) -> None:
        self._greenlet.kill()
        self.sock.close()

    close = disconnect


def serve_clients(transport_kind: str, hub: Hub) -> Iterator[Callable[[Connection], HubClient]]:
    """Yield `open(connection)` for this kind of transport; closes all its clients at the end."""
    transport = SocketTransport(hub) if transport_kind == "socket" else None
    clients: list[HubClient] = []

    def open_client(connection: Connection) -> HubClient:
        client = SocketClient(hub, connection, transport) if transport else WsgiClient(hub, connection)
        clients.append(client)
        return client

    yield open_client
    for client in clients:
        client.close()
    for connection in hub.connections:
        hub.close(connection, "test over")
    if transport:
        transport.close()
