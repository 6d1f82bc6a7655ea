"""What only the socket wire meets: clients that send, half-close, read a byte at a time."""

import socket
import sys

import gevent
import pytest

from broadcast.domain.audience import Viewer
from broadcast.streams.hub import Hub
from tests.hub.wires import eventually, make_hub, message, opener, subscribe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no epoll on this system")


@pytest.fixture
def hub() -> Hub:
    return make_hub()


@pytest.fixture
def open(hub):
    yield from opener("socket", hub)


def test_client_that_sends_after_its_request_is_left_in_peace(hub, open):
    bob = open(subscribe(hub, Viewer(2)))
    bob.sock.send(b"GET /again HTTP/1.1\r\n\r\n" * 100)
    gevent.sleep(0.01)
    hub.deliver([message(1)])
    eventually(lambda: bob.ids() == [1])
    assert len(hub) == 1


def test_half_closed_client_has_left(hub, open):
    bob = open(subscribe(hub, Viewer(2)))
    bob.sock.shutdown(socket.SHUT_WR)
    eventually(lambda: len(hub) == 0)


def test_reset_by_the_client_is_noticed_without_a_write(hub, open):
    bob = open(subscribe(hub, Viewer(2)))
    bob.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    bob.leave()
    eventually(lambda: len(hub) == 0)


def test_long_prelude_goes_out_at_the_pace_of_the_client(hub, open):
    connection = subscribe(hub, Viewer(2))
    made = []

    def prelude():
        for n in range(1, 301):
            made.append(n)
            yield b"id: e-%d\n" % n + b"data: %s\n\n" % (b"x" * 1000)

    connection.prelude = prelude()
    bob = open(connection)
    bob.paused = True
    gevent.sleep(0.01)
    assert len(made) < 300, "the client does not read, so the rest is not even made"
    bob.paused = False
    eventually(lambda: bob.ids() == list(range(1, 301)))


def test_descriptors_are_given_back(hub, open):
    connection = subscribe(hub, Viewer(2))
    bob = open(connection)
    assert connection.fd >= 0
    bob.leave()
    eventually(lambda: connection.fd == -1)
