"""A socket that cannot be adopted: nothing of its stream stays in the hub, and no descriptor leaks."""

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator

import pytest

from broadcast.domain.audience import Viewer
from broadcast.streams.hub import Hub
from broadcast.streams.socket_transport import SocketTransport
from tests.support.hub_clients import make_hub, subscribe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no epoll on this system")


@pytest.fixture
def hub() -> Hub:
    return make_hub()


@pytest.fixture
def sockets(hub: Hub) -> Iterator[SocketTransport]:
    sockets = SocketTransport(hub)
    yield sockets
    sockets.close()


class _Epoll:
    """An epoll that takes nobody any more, as over `max_user_watches`."""

    def __init__(self, real):
        self._real = real

    def register(self, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __getattr__(self, name: str):
        return getattr(self._real, name)


def no_descriptor_left(patch: pytest.MonkeyPatch, sockets: SocketTransport) -> None:
    def refuse(_fd: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    patch.setattr("broadcast.streams.socket_transport.os.dup", refuse)


def no_mode_to_set(patch: pytest.MonkeyPatch, sockets: SocketTransport) -> None:
    def refuse(_fd: int, _blocking: bool) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    patch.setattr("broadcast.streams.socket_transport.os.set_blocking", refuse)


def no_room_in_the_epoll(patch: pytest.MonkeyPatch, sockets: SocketTransport) -> None:
    patch.setattr(sockets, "_epoll", _Epoll(sockets._epoll))


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("fails", [no_descriptor_left, no_mode_to_set, no_room_in_the_epoll])
def test_stream_whose_socket_is_refused_is_nowhere_afterwards(
    hub: Hub, sockets: SocketTransport, monkeypatch: pytest.MonkeyPatch, fails: Callable
):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = subscribe(hub, Viewer(2))
        before = open_descriptors()
        fails(monkeypatch, sockets)
        with pytest.raises(OSError):
            sockets.adopt(connection, ours, b"HTTP/1.1 200 OK\r\n\r\n")
        monkeypatch.undo()
        assert open_descriptors() == before
        assert (len(hub), hub.online_user_ids, connection.fd) == (0, set(), -1)
        assert not connection.is_open


def test_stream_whose_first_bytes_cannot_be_made_is_nowhere_afterwards(hub: Hub, sockets: SocketTransport):
    def prelude() -> Iterator[bytes]:
        yield b"id: e-1\n\n"
        raise ValueError("a card that cannot be drawn")

    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = subscribe(hub, Viewer(2))
        connection.preamble = prelude()
        before = open_descriptors()
        with pytest.raises(ValueError, match="cannot be drawn"):
            sockets.adopt(connection, ours, b"HTTP/1.1 200 OK\r\n\r\n")
        assert open_descriptors() == before
        assert len(hub) == 0
