"""The transition from replay to live during publishing: no gap and no duplicate."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import measurements as figures
from tests.support.http_session import HttpSession
from tests.support.process_fixtures import StreamOpener
from tests.support.stream_client import StreamClient
from tests.support.system import System

pytestmark = pytest.mark.service

_EVENTS, _PUBLISHERS, _MOST_OPENED = 100, 4, 400


def test_hundred_events_published_while_streams_open_reach_each_once_and_in_order(
    system: System, streams: StreamOpener
):
    """F23: streams that resume from before the first event, each at another moment of the hundred."""
    token, mark = system.get_token("alice", "admin"), secrets.token_hex(4)
    watching = streams.open(system, "bob")
    begin = watching.cursor

    def publish(part: int) -> list[int]:
        alice = HttpSession(system, token=token)
        sent = [alice.publish(f"{mark} {n}") for n in range(part, _EVENTS, _PUBLISHERS)]
        alice.close()
        return sent

    opened: list[StreamClient] = []
    with ThreadPoolExecutor(_PUBLISHERS) as pool:
        parts = [pool.submit(publish, part) for part in range(_PUBLISHERS)]
        while len(opened) < _MOST_OPENED and not all(part.done() for part in parts):
            opened.append(streams.resume(system, "bob", begin))
        sent = [broadcast_id for part in parts for broadcast_id in part.result()]
    watching.wait_for("MESSAGE", lambda frame: len(watching.message_ids) == _EVENTS)
    assert sorted(watching.message_ids) == sorted(sent)
    for stream in opened:
        stream.wait_for("MESSAGE", lambda frame, stream=stream: len(stream.message_ids) >= _EVENTS)
        assert stream.message_ids == watching.message_ids
        assert len(stream.response_headers) == 1
    replayed = [[frame.event for frame in stream.frames].index("CONNECTED") for stream in opened]
    assert any(0 < count < _EVENTS for count in replayed), "no stream was opened in the middle"
    figures.measurements.append(
        f"{len(opened)} streams opened while {_EVENTS} events came: replayed {min(replayed)}–{max(replayed)}"
    )
