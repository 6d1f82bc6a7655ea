"""What only the socket transport meets: clients that send, half-close, or read a byte at a time."""

import socket
import sys

import gevent
import pytest

from broadcast.domain.audience import Viewer
from broadcast.streams.hub import Hub
from tests.support.hub_clients import make_hub, make_message_event, serve_clients, subscribe, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no epoll on this system")


@pytest.fixture
def hub() -> Hub:
    return make_hub()


@pytest.fixture
def open(hub):
    yield from serve_clients("socket", hub)


def test_client_that_sends_after_its_request_is_left_in_peace(hub, open):
    bob = open(subscribe(hub, Viewer(2)))
    bob.sock.send(b"GET /again HTTP/1.1\r\n\r\n" * 100)
    gevent.sleep(0.01)
    hub.deliver([make_message_event(1)])
    wait_until(lambda: bob.get_message_ids() == [1])
    assert len(hub) == 1


def test_half_closed_client_has_left(hub, open):
    bob = open(subscribe(hub, Viewer(2)))
    bob.sock.shutdown(socket.SHUT_WR)
    wait_until(lambda: len(hub) == 0)


def test_reset_by_the_client_is_noticed_without_a_write(hub, open):
    bob = open(subscribe(hub, Viewer(2)))
    bob.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    bob.disconnect()
    wait_until(lambda: len(hub) == 0)


def test_long_prelude_goes_out_at_the_pace_of_the_client(hub, open):
    connection = subscribe(hub, Viewer(2))
    made = []

    def prelude():
        for n in range(1, 301):
            made.append(n)
            yield b"id: e-%d\n" % n + b"data: %s\n\n" % (b"x" * 1000)

    connection.preamble = prelude()
    bob = open(connection)
    bob.is_paused = True
    gevent.sleep(0.01)
    assert len(made) < 300, "the client does not read, so the rest is not even made"
    bob.is_paused = False
    wait_until(lambda: bob.get_message_ids() == list(range(1, 301)))


def test_descriptors_are_given_back(hub, open):
    connection = subscribe(hub, Viewer(2))
    bob = open(connection)
    assert connection.fd >= 0
    bob.disconnect()
    wait_until(lambda: connection.fd == -1)
