"""A TCP server in a thread that answers every client with the bytes a test gives it, as no library would."""

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Answer = Callable[[socket.socket], None]


def send_bytes(answer: bytes) -> Answer:
    """Send these bytes and close."""
    return lambda client: client.sendall(answer)


def receive_request(client: socket.socket) -> bytes:
    """A request with its body, which may come in several pieces; b"" if the client is gone."""
    request = client.recv(65536)
    while length := re.search(rb"Content-Length: (\d+)\r\n(?:.+\r\n)*\r\n", request):
        if len(request) >= length.end() + int(length[1]) or not (part := client.recv(65536)):
            break
        request += part
    return request


@contextmanager
def run_raw_server(answer: Answer, *, tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[bytes]]]:
    """Yields the port and the list of the requests' first 64 KiB. `answer` is called after each, in its own thread."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, answer, tls, requests), daemon=True).start()
        yield listener.getsockname()[1], requests
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept


def _serve(listener: socket.socket, answer: Answer, tls: ssl.SSLContext | None, requests: list[bytes]) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_answer, args=(client, answer, tls, requests), daemon=True).start()


def _answer(client: socket.socket, answer: Answer, tls: ssl.SSLContext | None, requests: list[bytes]) -> None:
    with suppress(OSError), client:
        wrapped = tls.wrap_socket(client, server_side=True) if tls else client
        with wrapped:
            requests.append(receive_request(wrapped))
            answer(wrapped)
