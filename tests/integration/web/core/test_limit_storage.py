"""Counters of the rate limits: requests that count at the same time share a round trip, and each gets its own count."""

from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import pytest

from broadcast.bus.redis_client import CircuitBreaker
from broadcast.web.core.redis_limit_storage import Counter, RedisLimitStorage


class CountingRedis(CircuitBreaker):
    """Counts the calls, which are refused with `error` if there is one."""

    calls = 0
    error: Exception | None = None

    def call(self, command: Callable[[Any], Any]) -> Any:
        self.calls += 1
        if self.error:
            raise self.error
        return super().call(command)


@pytest.fixture
def redis(own_redis) -> CountingRedis:
    return CountingRedis(own_redis.url)


@pytest.fixture
def storage(redis) -> RedisLimitStorage:
    return RedisLimitStorage("broadcast+redis://", redis=redis)


def count_at_once(storage: RedisLimitStorage, requests: list[list[Counter]]) -> list[gevent.Greenlet]:
    return gevent.joinall([gevent.spawn(storage.incr_all, counters) for counters in requests], timeout=20)


def test_requests_that_count_at_the_same_time_share_a_round_trip_and_get_their_own_counts(redis, storage):
    done = count_at_once(storage, [[Counter("all", 60), Counter(f"user:{n}", 60)] for n in range(40)])
    assert sorted(greenlet.value for greenlet in done) == [[n + 1, 1] for n in range(40)]
    assert redis.calls == 1
    assert storage.incr("all", 60) == 41
    assert redis.calls == 2


def test_round_trip_has_room_for_so_many_and_the_rest_take_the_next(redis, storage):
    done = count_at_once(storage, [[Counter("all", 60)] for _ in range(250)])
    assert sorted(greenlet.value[0] for greenlet in done) == list(range(1, 251))
    assert redis.calls == 3


def test_request_that_is_killed_leaves_nobody_waiting(redis, storage, monkeypatch):
    is_under_way = gevent.event.Event()
    monkeypatch.setattr(redis, "call", lambda command: is_under_way.wait(20) and CircuitBreaker.call(redis, command))
    first, *others = [gevent.spawn(storage.incr, "all", 60) for _ in range(4)]
    gevent.sleep(0)  # all of them wait
    first.kill()
    is_under_way.set()
    assert sorted(greenlet.get(timeout=20) for greenlet in others) == [2, 3, 4]


def test_all_that_share_a_refused_round_trip_count_in_memory(redis, storage):
    redis.error = ConnectionError("away")
    done = count_at_once(storage, [[Counter("all", 60)] for _ in range(5)])
    assert sorted(greenlet.value[0] for greenlet in done) == [1, 2, 3, 4, 5]
    redis.error = None
    assert storage.incr("all", 60) == 1


def test_fault_of_ours_is_raised_to_everybody_who_waits(redis, storage):
    redis.error = KeyError("a fault")
    done = count_at_once(storage, [[Counter("all", 60)] for _ in range(3)])
    assert [type(greenlet.exception) for greenlet in done] == [KeyError] * 3
    redis.error = None
    assert storage.incr("all", 60) == 1
