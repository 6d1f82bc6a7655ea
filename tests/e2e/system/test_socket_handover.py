"""A stream leaves gunicorn: the hub adopts its socket, and gunicorn keeps neither a greenlet nor a descriptor for it.

It relies on how gunicorn's async workers handle StopIteration. If a new gunicorn handles it differently, these fail.
"""

import os
import re
import secrets
import sys
import urllib.request
from collections import Counter

import pytest

from tests.support.http_session import HttpSession
from tests.support.process_fixtures import StreamOpener, wait_for_workers
from tests.support.stream_client import StreamClient
from tests.support.system import TIMEOUT_FACTOR, System, wait_for

pytestmark = [
    pytest.mark.service,
    pytest.mark.alike,
    pytest.mark.skipif(sys.platform != "linux", reason="sockets are taken over on Linux"),
]


@pytest.fixture
def thirty(system: System, streams: StreamOpener) -> list[StreamClient]:
    return streams.open_many(system, "bob", 30)


def test_gunicorn_honours_the_hand_over_of_sockets(thirty: list[StreamClient]):
    """gunicorn's own head would name the server, and chunk a body whose length it does not know."""
    for stream in thirty:
        [head] = stream.response_headers
        assert head["Connection"] == "close"
        assert head["Transfer-Encoding"] is None, "this stream is a generator that gunicorn drives"
        assert head["Server"] is None, "gunicorn wrote this head"


def test_gunicorn_closes_its_own_copy_of_a_socket_that_was_handed_over(system: System, thirty: list[StreamClient]):
    """The streams of a worker are as many descriptors as streams: a second one of the same socket would be gunicorn's."""
    for worker in wait_for_workers(system):
        wait_for(lambda worker=worker: not _held_twice(worker), description="gunicorn to close its copies")
    assert all(len(stream.response_headers) == 1 for stream in thirty), "a stream was closed with gunicorn's copy"


def test_streams_handed_over_are_counted_and_still_served(
    system: System, thirty: list[StreamClient], alice: HttpSession
):
    wait_for(lambda: _gauge(system, "broadcast_streams") >= 30, description="/metrics to count 30 streams")
    sent = alice.publish(f"After the hand-over {secrets.token_hex(4)}")
    for stream in thirty:
        stream.wait_for_message(sent)
        stream.close()
    wait_for(lambda: _gauge(system, "broadcast_streams") == 0, description="/metrics to count none")


def test_client_that_leaves_is_noticed_without_a_write(system: System, thirty: list[StreamClient]):
    before = _sockets(wait_for_workers(system))
    for stream in thirty:
        stream.close()
    wait_for(
        lambda: len(before - _sockets(system.get_worker_pids())) >= 30,
        seconds=12 / TIMEOUT_FACTOR,  # before the heartbeat would have found out for all of them
        description="30 descriptors to be closed",
    )


def _gauge(system: System, name: str) -> float:
    with urllib.request.urlopen(system.url + "/metrics", timeout=10) as answer:
        found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def _held_twice(pid: int) -> list[str]:
    return [name for name, count in Counter(_descriptors(pid)).items() if count > 1]


def _sockets(pids: list[int]) -> set[str]:
    return {name for pid in pids for name in _descriptors(pid)}


def _descriptors(pid: int) -> list[str]:
    """`socket:[inode]` of every socket that this process has open."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:"):
            found.append(target)
    return found
