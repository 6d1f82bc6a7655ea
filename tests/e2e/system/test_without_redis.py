"""Redis is only for speed: without it messages arrive a moment later."""

import signal
import time
from collections.abc import Iterator

import pytest

from tests.support import measurements
from tests.support.http_session import HttpSession
from tests.support.ports import find_free_port
from tests.support.process_fixtures import StreamOpener, wait_for_workers
from tests.support.servers import RedisServer
from tests.support.system import System, run_system, wait_for

pytestmark = [pytest.mark.service, pytest.mark.alike]

_PATIENCE_SECONDS = 20  # ours is 0.25 s, redis-py's own is 25 s and more; what lies between is room for a busy machine


@pytest.fixture(scope="module")
def deaf_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Its REDIS_URL leads nowhere, and limits are on, so that they too ask a Redis that is not there."""
    nowhere = f"redis://127.0.0.1:{find_free_port()}"
    with run_system(tmp_path_factory.mktemp("deaf"), redis_url=nowhere, RATELIMIT_ENABLED="1") as running:
        yield running


def test_without_redis_publishing_answers_quickly_and_the_poll_delivers(deaf_system: System, streams: StreamOpener):
    system = deaf_system
    here, there = wait_for_workers(system)
    near = streams.open_at_worker(here, lambda: streams.open(system, "bob"))
    far = streams.open_at_worker(there, lambda: streams.open(system, "bob"))
    alice = HttpSession.connect_to_worker(system, here, token=system.get_token("alice", "admin"))
    answered, arrived = [], []  # seconds
    for n in range(5):
        began = time.monotonic()
        sent = alice.publish(f"Unheard {n}")
        answered.append(time.monotonic() - began)
        arrived += [stream.wait_for_message(sent).received_at - began for stream in (near, far)]
    measurements.record_durations("without Redis: publish → answer", answered)
    measurements.record_durations("without Redis: publish → frame on a stream, two workers", arrived)
    assert max(answered) < _PATIENCE_SECONDS


def test_without_redis_ready_says_degraded_and_healthy_stays_healthy(deaf_system: System):
    visitor = HttpSession(deaf_system)
    ready = visitor.get("/readyz")
    assert (ready.status, ready.json["status"]) == (200, "degraded")
    assert list(ready.json["degraded"]) == ["redis"]
    assert visitor.get("/healthz").status == 200


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_redis_lost_in_the_middle_costs_a_moment_and_no_message(
    own_system, own_redis: RedisServer, streams: StreamOpener, how: signal.Signals
):
    system = own_system(redis_url=own_redis.url, RATELIMIT_ENABLED="1", LIMIT_PUBLISH_PER_USER="1000/minute")
    both = streams.open_at_each_worker(system, lambda: streams.open(system, "bob"))
    alice = HttpSession(system, token=system.get_token("alice", "admin"))
    sent = [alice.publish("Heard")]
    own_redis.send_signal(how)
    for n in range(3):
        began = time.monotonic()
        sent.append(alice.publish(f"Unheard {n}"))
        took = time.monotonic() - began
        assert took < _PATIENCE_SECONDS, f"publishing waited {took:.1f} s for a Redis that is {how.name}ed"
        for stream in both:
            stream.wait_for_message(sent[-1])
    wait_for(lambda: _is(system, "degraded"), description="/readyz to say degraded")
    own_redis.send_signal(signal.SIGCONT) if how is signal.SIGSTOP else own_redis.start()
    wait_for(lambda: _is(system, "ok"), seconds=20, description="/readyz to say ok again")
    sent.append(alice.publish("Heard again"))
    for stream in both:
        stream.wait_for_message(sent[-1])
        assert stream.message_ids == sent


def _is(system: System, status: str) -> bool:
    """Whether every worker says so: each is asked a few times."""
    visitors = [HttpSession(system) for _ in range(8)]
    said = {visitor.get("/readyz").json["status"] for visitor in visitors}
    for visitor in visitors:
        visitor.close()
    return said == {status}
