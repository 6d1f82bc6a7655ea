"""What an operator sees of open streams, and does to them, whichever worker is asked."""

import re

import pytest

from tests.processes import Streams, wait_for_workers
from tests.streams import Stream
from tests.system import System, wait_for
from tests.visitor import Visitor

pytestmark = pytest.mark.service


def test_figures_of_streams_are_those_of_all_workers(system: System, streams: Streams):
    workers = wait_for_workers(system)
    streams.one_at_each_worker(system, lambda: streams.open(system, "bob"))
    for worker in workers:
        alice = Visitor.at_worker(system, worker, token=system.token("alice", "admin"))
        stats = wait_for(lambda alice=alice: _if_bob_alone(alice, workers), what="Bob alone to be counted, at both")
        assert stats["oldest"].endswith("Z")
        assert {type(stats[name]) for name in ("slowConsumersClosed", "eventsDelivered")} == {int}
        alice.close()


def _if_bob_alone(alice: Visitor, workers: list[int]) -> dict | None:
    """The figures, once they are of one person with a stream at each worker: others may only be leaving."""
    stats = alice.get("/api/sse/stats").json
    at = {name.partition("-")[0]: count for name, count in stats["perWorker"].items()}
    is_so = (stats["streams"], stats["usersOnline"], at) == (2, 1, {str(worker): 1 for worker in workers})
    return stats if is_so else None


def test_person_is_connected_wherever_one_asks_until_the_last_stream_is_closed(system: System, streams: Streams):
    """An administrator about anybody, everybody about themselves."""
    here, there = wait_for_workers(system)
    dora = system.add_person()
    stream = streams.open_at(here, lambda: streams.open(system, dora))
    tokens = (system.token("alice", "admin"), system.token(dora))
    askers = [Visitor.at_worker(system, worker, token=token) for worker in (here, there) for token in tokens]
    user_id = wait_for(lambda: _user_of(stream, askers[0]), what="the console to list the stream")
    path = f"/api/sse/connected/{user_id}"
    for asker in askers:
        wait_for(lambda asker=asker: asker.get(path).json == {"userId": user_id, "connected": True})
    assert Visitor(system, token=system.token("bob")).get(path).status == 403
    assert askers[0].get("/api/sse/connected/999999999").json["connected"] is False
    stream.close()
    for asker in askers:
        wait_for(lambda asker=asker: asker.get(path).json == {"userId": user_id, "connected": False})
        asker.close()


def test_console_lists_streams_and_closes_one_in_another_worker(system: System, streams: Streams):
    alice = Visitor.signed_in(system, "alice")
    [elsewhere] = set(wait_for_workers(system)) - {alice.worker}
    kept = streams.open_at(alice.worker, lambda: streams.open(system, "bob"))
    hanging = streams.open_at(elsewhere, lambda: streams.open(system, "bob"))
    user_id = wait_for(lambda: _user_of(hanging, alice), what="the console to list the stream")
    assert _user_of(kept, alice) == user_id
    closed_at = f"/console/connections/{_connection(hanging)}/close"
    refused = alice.post(closed_at)
    assert (refused.status, len(hanging.heads)) == (422, 1), "whose stream it is must be told"
    answer = alice.post(closed_at, userId=str(user_id))
    assert (answer.status, answer.headers["Location"]) == (303, "/console/connections")
    wait_for(lambda: len(hanging.heads) == 2, what="the closed stream to come back")
    wait_for(lambda: _user_of(hanging, alice) is None, what="the closed stream to leave the list")
    assert _user_of(kept, alice) == user_id
    assert len(kept.heads) == 1


def _connection(stream: Stream) -> str:
    """Its first connection's id."""
    return stream.of("CONNECTED")[0].json["connectionId"]


def _user_of(stream: Stream, alice: Visitor) -> int | None:
    """Whose stream the console says it is; None while it is not listed."""
    close = rf'/console/connections/{re.escape(_connection(stream))}/close"'
    shown = re.search(close + r'.*?name="userId" value="(\d+)"', alice.get("/console/connections").text, re.DOTALL)
    return int(shown[1]) if shown else None
