"""Operators list and close open streams, whichever worker answers."""

import re

import pytest

from tests.support.http_session import HttpSession
from tests.support.process_fixtures import StreamOpener, wait_for_workers
from tests.support.stream_client import StreamClient
from tests.support.system import System, wait_for

pytestmark = pytest.mark.service


def test_figures_of_streams_are_those_of_all_workers(system: System, streams: StreamOpener):
    workers = wait_for_workers(system)
    streams.open_at_each_worker(system, lambda: streams.open(system, "bob"))
    for worker in workers:
        alice = HttpSession.connect_to_worker(system, worker, token=system.get_token("alice", "admin"))
        stats = wait_for(
            lambda alice=alice: _if_bob_alone(alice, workers), description="Bob alone to be counted, at both"
        )
        assert stats["oldest"].endswith("Z")
        assert {type(stats[name]) for name in ("slowConsumersClosed", "eventsDelivered")} == {int}
        alice.close()


def _if_bob_alone(alice: HttpSession, workers: list[int]) -> dict | None:
    """The figures, once they are of one person with a stream at each worker: others may only be leaving."""
    stats = alice.get("/api/sse/stats").json
    at = {name.partition("-")[0]: count for name, count in stats["perWorker"].items()}
    is_so = (stats["streams"], stats["usersOnline"], at) == (2, 1, {str(worker): 1 for worker in workers})
    return stats if is_so else None


def test_person_is_connected_wherever_one_asks_until_the_last_stream_is_closed(system: System, streams: StreamOpener):
    """An administrator about anybody, everybody about themselves."""
    here, there = wait_for_workers(system)
    dora = system.create_user()
    stream = streams.open_at_worker(here, lambda: streams.open(system, dora))
    tokens = (system.get_token("alice", "admin"), system.get_token(dora))
    askers = [
        HttpSession.connect_to_worker(system, worker, token=token) for worker in (here, there) for token in tokens
    ]
    user_id = wait_for(lambda: _user_of(stream, askers[0]), description="the console to list the stream")
    path = f"/api/sse/connected/{user_id}"
    for asker in askers:
        wait_for(lambda asker=asker: asker.get(path).json == {"userId": user_id, "connected": True})
    assert HttpSession(system, token=system.get_token("bob")).get(path).status == 403
    assert askers[0].get("/api/sse/connected/999999999").json["connected"] is False
    stream.close()
    for asker in askers:
        wait_for(lambda asker=asker: asker.get(path).json == {"userId": user_id, "connected": False})
        asker.close()


def test_console_lists_streams_and_closes_one_in_another_worker(system: System, streams: StreamOpener):
    alice = HttpSession.sign_in(system, "alice")
    [elsewhere] = set(wait_for_workers(system)) - {alice.worker}
    kept = streams.open_at_worker(alice.worker, lambda: streams.open(system, "bob"))
    hanging = streams.open_at_worker(elsewhere, lambda: streams.open(system, "bob"))
    user_id = wait_for(lambda: _user_of(hanging, alice), description="the console to list the stream")
    assert _user_of(kept, alice) == user_id
    closed_at = f"/console/connections/{_connection(hanging)}/close"
    refused = alice.post(closed_at)
    assert (refused.status, len(hanging.response_headers)) == (422, 1), "whose stream it is must be told"
    answer = alice.post(closed_at, userId=str(user_id))
    assert (answer.status, answer.headers["Location"]) == (303, "/console/connections")
    wait_for(lambda: len(hanging.response_headers) == 2, description="the closed stream to come back")
    wait_for(lambda: _user_of(hanging, alice) is None, description="the closed stream to leave the list")
    assert _user_of(kept, alice) == user_id
    assert len(kept.response_headers) == 1


def _connection(stream: StreamClient) -> str:
    """Its first connection's id."""
    return stream.frames_of("CONNECTED")[0].json["connectionId"]


def _user_of(stream: StreamClient, alice: HttpSession) -> int | None:
    """Whose stream the console says it is; None while it is not listed."""
    close = rf'/console/connections/{re.escape(_connection(stream))}/close"'
    shown = re.search(close + r'.*?name="userId" value="(\d+)"', alice.get("/console/connections").text, re.DOTALL)
    return int(shown[1]) if shown else None
