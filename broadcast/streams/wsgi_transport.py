"""The WSGI transport: a stream as the body of an ordinary WSGI response, for servers that do not hand over sockets."""

from collections.abc import Iterator

from gevent.event import Event as GeventEvent

from broadcast.streams.connection import Connection
from broadcast.streams.hub import Hub


class WsgiTransport:
    """A Transport whose bytes the server pulls. One per stream; costs the server a greenlet or thread."""

    def __init__(self) -> None:
        self._wakeup = GeventEvent()

    def write(self, connection: Connection, data: bytes) -> None:
        connection.set_unsent(data)
        self._wakeup.set()

    def end(self, connection: Connection) -> None:
        self._wakeup.set()

    def generate_body(self, hub: Hub, connection: Connection) -> Iterator[bytes]:
        """The response body. The stream ends when the body is closed or the client leaves."""
        hub.attach_transport(connection, self)
        try:
            while True:
                if data := connection.next_chunk():
                    yield data
                elif not connection.is_open:
                    return
                else:
                    self._wakeup.clear()
                    self._wakeup.wait()
        finally:
            hub.close(connection, "left")
