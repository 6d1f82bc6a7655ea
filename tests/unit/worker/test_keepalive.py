"""Idle connections: kept for their timeout, closed after it, and never closed during a request."""

import gevent
import pytest
from gevent.event import Event

from broadcast.worker.keepalive import KeepAlive


@pytest.fixture
def keepalive() -> KeepAlive:
    return KeepAlive(60)


def test_connection_that_waits_is_let_go_at_the_end_without_an_error(keepalive: KeepAlive):
    def connection() -> str:
        with keepalive.idle_timeout():
            Event().wait()
        return "let go"

    waiting = [gevent.spawn(connection) for _ in range(3)]
    gevent.sleep(0)
    keepalive.close_idle()
    gevent.joinall(waiting, timeout=5)
    assert [greenlet.value for greenlet in waiting] == ["let go"] * 3


def test_connection_whose_request_came_in_the_same_moment_is_served(keepalive: KeepAlive):
    request, answered = Event(), Event()

    def connection() -> str:
        with keepalive.idle_timeout():
            request.wait()
        answered.wait()
        return "served"

    asking = gevent.spawn(connection)
    gevent.sleep(0)
    request.set()
    keepalive.close_idle()
    gevent.idle()
    answered.set()
    assert asking.get(timeout=5) == "served"


def test_connection_that_nobody_uses_is_let_go_when_its_time_is_over():
    def connection() -> str:
        with KeepAlive(0.01).idle_timeout():
            Event().wait()
        return "let go"

    assert gevent.spawn(connection).get(timeout=5) == "let go"
