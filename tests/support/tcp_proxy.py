"""A TCP proxy that a test pauses, disconnects and closes."""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.ports import find_free_port


class TcpProxy:
    """A TCP proxy to (host, port). `pause` delays every byte until `resume`, `disconnect` closes the open connections,
    `close` refuses new ones until `open`.
    """

    def __init__(self, host: str, port: int):
        self.port = find_free_port()
        self._target = (host, port)
        self._is_flowing = threading.Event()
        self._is_flowing.set()
        self._connections: set[tuple[socket.socket, socket.socket]] = set()
        self._listener: socket.socket | None = None
        self.open()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=200)
        threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def pause(self) -> None:
        self._is_flowing.clear()

    def resume(self) -> None:
        self._is_flowing.set()

    def disconnect(self) -> None:
        for pair in list(self._connections):
            for sock in pair:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._listener.close()
        self.disconnect()
        self.resume()

    @contextmanager
    def refuse_connections(self) -> Iterator[None]:
        self.close()
        try:
            yield
        finally:
            self.open()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client_sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward_connection, args=[client_sock], daemon=True).start()

    def _forward_connection(self, client_sock: socket.socket) -> None:
        try:
            server_sock = socket.create_connection(self._target, timeout=10)
        except OSError:
            client_sock.close()
            return
        self._connections.add((client_sock, server_sock))
        with client_sock, server_sock, selectors.DefaultSelector() as selector, suppress(OSError):
            selector.register(client_sock, selectors.EVENT_READ, server_sock)
            selector.register(server_sock, selectors.EVENT_READ, client_sock)
            while self._forward_once(selector):
                pass
        self._connections.discard((client_sock, server_sock))

    def _forward_once(self, selector: selectors.BaseSelector) -> bool:
        """Wait for bytes and forward them; return False when either side has closed."""
        for key, _ in selector.select():
            data = key.fileobj.recv(65536)
            if not data:
                return False
            self._is_flowing.wait()
            key.data.sendall(data)
        return True
