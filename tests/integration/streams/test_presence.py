"""Presence across two workers over a real Redis that is flushed, frozen and killed."""

import json
import time
from collections.abc import Callable

import pytest
from redis import Redis

from broadcast.base import untrusted_json
from broadcast.bus.redis_client import CircuitBreaker
from broadcast.domain.audience import Viewer
from broadcast.streams.connection import Connection
from broadcast.streams.presence import RedisPresence
from tests.support.hub_clients import make_hub, subscribe
from tests.support.servers import RedisServer
from tests.support.system import wait_for

pytestmark = pytest.mark.service

_BOB, _CHARLIE = Viewer(2), Viewer(3)


class Worker:
    """A hub and its presence, and what a worker's loop does with them."""

    def __init__(self, url: str, lease_seconds: float):
        self.hub = make_hub(per_user=1000, per_address=1000)
        self.circuit_breaker = CircuitBreaker(url)
        self.presence = RedisPresence(self.hub, url, self.circuit_breaker, lease_seconds=lease_seconds)
        self.beat()

    def beat(self) -> None:
        self.presence.renew_lease()
        self.presence.write_changes()

    def open(self, viewer: Viewer, label: str = "") -> Connection:
        connection = subscribe(self.hub, viewer, label=label)
        self.presence.write_changes()
        return connection

    def close(self, connection: Connection) -> None:
        self.hub.close(connection, "left")
        self.presence.write_changes()


@pytest.fixture
def start(own_redis: RedisServer) -> Callable[..., Worker]:
    return lambda lease_seconds=60.0: Worker(own_redis.url, lease_seconds)


def test_people_of_two_workers_are_seen_by_both(start):
    """Tabs count, not people; closing one tab leaves its person online."""
    here, there = start(), start()
    assert here.presence.list_streams() == there.presence.list_streams() == []
    first, second = here.open(_BOB, "Inbox"), there.open(_BOB, "Phone")
    there.open(_CHARLIE)
    for worker in (here, there):
        assert worker.presence.get_online_ids() == {2, 3}
        assert [worker.presence.is_online(user_id) for user_id in (1, 2, 3)] == [False, True, True]
        seen = {(s.user_id, s.id, s.label, s.worker) for s in worker.presence.list_streams()}
        assert {
            (2, first.id, "Inbox", here.presence.worker),
            (2, second.id, "Phone", there.presence.worker),
        } < seen
        assert len(seen) == 3
    here.close(first)
    assert here.presence.is_online(2)
    there.close(second)
    assert here.presence.get_online_ids() == there.presence.get_online_ids() == {3}


def test_changes_are_written_in_batches(start, own_redis):
    """A storm of 450 people is three writes, and a person who came and went in between is none."""
    here, there = start(), start()
    for user_id in range(1, 451):
        subscribe(here.hub, Viewer(user_id))
    there.hub.close(subscribe(there.hub, _BOB), "left")
    here.presence.write_changes()
    there.presence.write_changes()
    here.presence.write_changes()
    with Redis.from_url(own_redis.url) as redis:
        assert redis.info("commandstats")["cmdstat_hset"]["calls"] == 3
    assert there.presence.get_online_ids() == set(range(1, 451))


def test_renewing_the_lease_writes_nobody_anew(start, own_redis):
    """The cost of a heartbeat does not grow with the streams."""
    here = start()
    here.open(_BOB)
    for _ in range(5):
        here.beat()
    with Redis.from_url(own_redis.url) as redis:
        assert redis.info("commandstats")["cmdstat_hset"]["calls"] == 1


def test_emptied_server_is_filled_again_at_the_next_renewal(start, own_redis):
    """F04"""
    here, there = start(), start()
    here.open(_BOB)
    with Redis.from_url(own_redis.url) as redis:
        redis.flushall()
    assert there.presence.get_online_ids() == set()
    here.beat()
    assert there.presence.get_online_ids() == {2}


def test_emptied_server_is_filled_also_when_somebody_came_before_the_renewal(start, own_redis):
    """F04: the newcomer must not pass for the whole."""
    here, there = start(), start()
    here.open(_BOB)
    with Redis.from_url(own_redis.url) as redis:
        redis.flushall()
    here.open(_CHARLIE)
    here.beat()
    assert there.presence.get_online_ids() == {2, 3}


def test_worker_that_dies_is_forgotten_after_its_lease(start, own_redis):
    here, dead = start(), start(lease_seconds=3)
    here.open(_BOB)
    dead.open(_CHARLIE)
    assert here.presence.get_online_ids() == {2, 3}
    wait_for(lambda: here.presence.get_online_ids() == {2}, seconds=20, description="Charlie's worker to be forgotten")
    assert not here.presence.is_online(3)
    with Redis.from_url(own_redis.url) as redis:  # and nothing of it is left lying about
        wait_for(lambda: len(redis.keys("*")) == 2, seconds=20, description="its people to be gone from the server")


def test_worker_that_leaves_is_forgotten_at_once(start):
    here, leaver = start(), start()
    leaver.open(_CHARLIE)
    leaver.presence.remove_worker()
    assert here.presence.get_online_ids() == set()
    assert here.presence.list_streams() == []


@pytest.mark.parametrize("how", ["stop", "freeze"])
def test_server_that_is_away_raises_nothing_and_hides_nobody_of_this_worker(start, own_redis, how):
    """F01, F02: what happened meanwhile is written when it is back."""
    here, there = start(), start()
    bob = here.open(_BOB)
    there.open(Viewer(4))
    getattr(own_redis, how)()
    began = time.monotonic()
    here.close(bob)
    here.open(_CHARLIE)
    here.beat()
    assert here.presence.get_online_ids() == {3}
    assert here.presence.is_online(3)
    assert not here.presence.is_online(4)
    assert [stream.user_id for stream in here.presence.list_streams()] == [3]
    assert time.monotonic() - began < 20, "no question waits longer than its client is patient"
    own_redis.thaw() if how == "freeze" else own_redis.start()
    for worker in (here, there):
        wait_for(
            lambda worker=worker: worker.beat() or not worker.hub.changed_user_ids,
            description="the changes to be written",
        )
    for worker in (here, there):
        worker.circuit_breaker.reset()  # as its bus does when it hears from the server again
        wait_for(lambda worker=worker: worker.presence.get_online_ids() == {3, 4}, description="both to be seen")


def test_server_that_is_away_does_not_keep_a_worker_from_leaving(start, own_redis):
    here = start()
    here.open(_BOB)
    own_redis.stop()
    here.presence.remove_worker()


_STREAM = {"id": "a", "representation": "json", "label": "", "address": "::1", "backlog_bytes": 0}
_STREAM["since"] = "2026-11-24T12:00:00.000Z"
_DEEP = "[" * 50_000


@pytest.mark.parametrize(
    ("user_id", "streams"),
    [
        ("2", "{"),
        ("2", _DEEP),
        ("2", "x" * 2_000_000),
        ("2", b"\xff\xfe"),
        ("2", "null"),
        ("2", "[1, 2]"),
        ("2", '[{"id": "a"}]'),
        ("2", json.dumps([_STREAM | {"user_id": 1}])),
        ("2", json.dumps([_STREAM | {"id": 7}])),
        ("2", json.dumps([_STREAM | {"label": {"a": 1}}])),
        ("2", json.dumps([_STREAM | {"label": "x" * 10_000}])),
        ("2", json.dumps([_STREAM | {"since": "yesterday"}])),
        ("2", json.dumps([_STREAM | {"since": None}])),
        ("2", json.dumps([_STREAM | {"backlog_bytes": "many"}])),
        ("2", json.dumps([_STREAM | {"backlog_bytes": 10**30}])),
        ("x", json.dumps([_STREAM])),
        ("-1", json.dumps([_STREAM])),
        ("9" * 40, json.dumps([_STREAM])),
        (b"\xff", json.dumps([_STREAM])),
    ],
    ids=lambda value: str(value)[:20],
)
def test_people_that_somebody_else_wrote_are_left_out_and_counted(start, own_redis, user_id, streams):
    here, there = start(), start()
    there.open(_CHARLIE)
    before = untrusted_json.rejection_counts["presence"]
    with Redis.from_url(own_redis.url) as redis:
        redis.hset(f"broadcast:presence:{there.presence.worker}", user_id, streams)
    assert [stream.user_id for stream in here.presence.list_streams()] == [3]
    assert here.presence.get_online_ids() <= {2, 3}
    assert untrusted_json.rejection_counts["presence"] > before


@pytest.mark.parametrize("worker", [b"\xff\xfe", b"", b"x" * 100_000, b"1-abc", b"*"], ids=lambda name: str(name)[:12])
def test_workers_that_somebody_else_wrote_are_left_out(start, own_redis, worker):
    here, there = start(), start()
    there.open(_CHARLIE)
    with Redis.from_url(own_redis.url) as redis:
        redis.zadd("broadcast:presence", {worker: 2e9 * 10})
    assert here.presence.get_online_ids() == {3}
    assert here.presence.is_online(3)
    assert len(here.presence.list_streams()) == 1


def test_worker_with_more_people_than_any_could_have_is_left_out(start, own_redis, monkeypatch):
    monkeypatch.setattr("broadcast.streams.presence._MAX_USERS_PER_WORKER", 3)
    here, there = start(), start()
    there.open(_CHARLIE)
    assert here.presence.get_online_ids() == {3}
    with Redis.from_url(own_redis.url) as redis:
        redis.hset(f"broadcast:presence:{there.presence.worker}", mapping={str(n): "[]" for n in range(10, 20)})
    assert here.presence.get_online_ids() == set()
    assert here.presence.list_streams() == []


@pytest.mark.parametrize("kind", ["text", "list", "the other way round"])
def test_key_of_another_kind_in_our_place_is_taken_away(start, own_redis, kind):
    here, there = start(), start()
    here.open(_BOB)
    own = f"broadcast:presence:{here.presence.worker}"
    with Redis.from_url(own_redis.url) as redis:
        redis.delete(own, "broadcast:presence")
        if kind == "text":
            redis.mset({own: "x", "broadcast:presence": "x"})
        elif kind == "list":
            redis.rpush(own, "x")
            redis.rpush("broadcast:presence", "x")
        else:
            redis.zadd(own, {"x": 1})
            redis.hset("broadcast:presence", "x", "1")
    assert there.presence.get_online_ids() == set()
    assert there.presence.list_streams() == []
    for _ in range(3):
        here.beat()
    assert there.presence.get_online_ids() == {2}
