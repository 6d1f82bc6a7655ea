"""The gunicorn worker that looks at the first bytes of a connection: what it ends, counts, and leaves to gunicorn."""

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket as gevent_socket
from gunicorn.workers.ggevent import GeventWorker

from broadcast.worker.stream_worker import StreamWorker

PEER = ("127.0.0.1", 1)


class Direct:
    """Answers what begins with "stream"."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, Any]] = []

    def try_answer(self, data: bytes, sock: Any, peer: Any) -> bool:
        self.seen.append((data, peer))
        return data.startswith(b"stream")


@pytest.fixture
def left_to_gunicorn(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What gunicorn reads from connections that are left to it."""
    received: list[bytes] = []
    monkeypatch.setattr(GeventWorker, "handle", lambda self, listener, client, addr: received.append(client.recv(100)))
    return received


@pytest.fixture
def worker() -> StreamWorker:
    """A worker that was not started."""
    worker = object.__new__(StreamWorker)
    worker.cfg = SimpleNamespace(is_ssl=False)
    worker.log = SimpleNamespace(info=lambda *_: None)
    worker.alive, worker.nr, worker.max_requests = True, 0, 2
    worker.direct_streams, worker.timeout_ctx = Direct(), nullcontext
    return worker


@pytest.fixture
def connection() -> Iterator[tuple[gevent_socket.socket, gevent_socket.socket]]:
    server, client = gevent_socket.socketpair()
    with server, client:
        yield server, client


def test_stream_is_answered_without_gunicorn_and_its_copy_closed(worker, connection, left_to_gunicorn):
    server, client = connection
    client.sendall(b"stream, please")
    worker.handle(None, server, PEER)
    assert worker.direct_streams.seen == [(b"stream, please", PEER)]
    assert left_to_gunicorn == []
    assert server.fileno() == -1


def test_anything_else_is_left_to_gunicorn_whole(worker, connection, left_to_gunicorn):
    server, client = connection
    client.sendall(b"GET / HTTP/1.1")
    worker.handle(None, server, PEER)
    assert left_to_gunicorn == [b"GET / HTTP/1.1"]
    assert worker.nr == 0


def test_client_that_leaves_without_a_word_is_left_to_gunicorn(worker, connection, left_to_gunicorn):
    server, client = connection
    client.close()
    worker.handle(None, server, PEER)
    assert left_to_gunicorn == [b""]


def test_client_that_resets_the_connection_is_left_to_gunicorn(worker, monkeypatch):
    class Reset:
        def setblocking(self, flag: bool) -> None: ...

        def recv(self, *_: int) -> bytes:
            raise ConnectionResetError

    left: list[Any] = []
    monkeypatch.setattr(GeventWorker, "handle", lambda self, listener, client, addr: left.append(client))
    client = Reset()
    worker.handle(None, client, PEER)
    assert left == [client]


def test_silent_client_is_closed_when_gunicorn_would_close_it(worker, connection, left_to_gunicorn):
    server, _client = connection
    worker.timeout_ctx = lambda: gevent.Timeout(0.01, False)
    worker.handle(None, server, PEER)
    assert (left_to_gunicorn, server.fileno()) == ([], -1)


def test_streams_count_as_requests_after_which_a_worker_ends(worker, left_to_gunicorn):
    for number in (1, 2):
        server, client = gevent_socket.socketpair()
        with server, client:
            client.sendall(b"stream")
            worker.handle(None, server, PEER)
        assert (worker.nr, worker.alive) == (number, number < 2)


@pytest.mark.parametrize("reason", ["TLS", "not ready"])
def test_where_bytes_cannot_be_looked_at_gunicorn_does_all(worker, connection, left_to_gunicorn, reason):
    server, client = connection
    client.sendall(b"stream")
    if reason == "TLS":
        worker.cfg.is_ssl = True
    else:
        worker.direct_streams = None
    worker.handle(None, server, PEER)
    assert left_to_gunicorn == [b"stream"]
