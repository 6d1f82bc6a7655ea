"""Counters of the rate limits in Redis: one server, Sentinel, or a cluster.

The storages of `limits` connect in their constructor, and its cluster storage fails there while the cluster is away.
This one uses the worker's own Redis client, as the bus does. While Redis is away or refuses, this worker counts in
memory, from zero; flask-limiter's own fallback would retry Redis only after up to half a minute.

What is counted while Redis answers somebody else goes out together in the next round trip: one took as much processor
time as opening a stream.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import gevent
from gevent.event import AsyncResult
from gevent.lock import BoundedSemaphore
from limits.storage import MemoryStorage, Storage

from broadcast.base import untrusted_json
from broadcast.bus.redis_client import CONNECTION_ERRORS, CircuitBreaker
from broadcast.observability import metrics

T = TypeVar("T")
_KEY_PREFIX = "broadcast:limit:"
_SCAN_COUNT = 500
_MAX_COUNTERS_TOGETHER = 100  # in one round trip, whose answers are read without a pause
# Atomic, so that no counter stays without an expiry and locks somebody out. A value of another type, not a number or
# without an expiry was written by somebody else: it is replaced, or gets an expiry.
_INCREMENT_SCRIPT = """
local count = redis.pcall("INCRBY", KEYS[1], ARGV[2])
local is_ours = 1
if type(count) == "table" then
    local is_of_others = false
    for _, sign in ipairs({"WRONGTYPE", "not an integer", "overflow"}) do
        is_of_others = is_of_others or string.find(count.err, sign, 1, true)
    end
    if not is_of_others then return count end
    redis.call("DEL", KEYS[1])
    count, is_ours = redis.call("INCRBY", KEYS[1], ARGV[2]), 0
end
local left = redis.call("TTL", KEYS[1])
if left < 0 or left > tonumber(ARGV[1]) then redis.call("EXPIRE", KEYS[1], ARGV[1]) end
return {count, is_ours}
"""


class Counter(NamedTuple):
    """What is incremented by `amount`; it expires `expiry` seconds after the first increment."""

    key: str
    expiry: int
    amount: int = 1


class _RoundTrip:
    """Counters that go out together. `counts` has their values, or the error, once they are back."""

    def __init__(self) -> None:
        self.counters: list[Counter] = []
        self.counts = AsyncResult()


class RedisLimitStorage(Storage):
    """A `limits` storage for the fixed-window strategy."""

    STORAGE_SCHEME = ["broadcast+redis"]

    def __init__(self, uri: str, *, redis: CircuitBreaker, wrap_exceptions: bool = False, **_: Any):
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._redis, self._fallback = redis, MemoryStorage()
        self._under_way = BoundedSemaphore(1)
        self._next_round_trip = _RoundTrip()

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return CONNECTION_ERRORS

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Increment and return the counter. It expires `expiry` seconds after the first increment."""
        return self.incr_all([Counter(key, expiry, amount)])[0]

    def incr_all(self, counters: Sequence[Counter]) -> list[int]:
        """Increment and return several counters. Waits for one round trip, or two while another is under way."""
        if len(self._next_round_trip.counters) >= _MAX_COUNTERS_TOGETHER:
            self._next_round_trip = _RoundTrip()
        round_trip = self._next_round_trip
        first = len(round_trip.counters)
        round_trip.counters += counters
        if first == 0:
            gevent.spawn(self._make, round_trip)  # in no request's greenlet, which may be killed while others wait
        return round_trip.counts.get()[first : first + len(counters)]

    def _make(self, round_trip: _RoundTrip) -> None:
        """Wait for the one that is under way, during which others join this one, and go."""
        with self._under_way:
            if self._next_round_trip is round_trip:
                self._next_round_trip = _RoundTrip()
            try:
                round_trip.counts.set(self._increment(round_trip.counters))
            except Exception as problem:  # each request that waits raises it
                round_trip.counts.set_exception(problem)

    def _increment(self, counters: Sequence[Counter]) -> list[int]:
        def increment(redis: Any) -> list[tuple[int, int]]:
            commands = redis if len(counters) == 1 else redis.pipeline(transaction=False)
            results = [commands.eval(_INCREMENT_SCRIPT, 1, _KEY_PREFIX + key, *args) for key, *args in counters]
            return results if commands is redis else commands.execute()

        results = self._call(increment, lambda memory: [(memory.incr(*counter), True) for counter in counters])
        if not all(is_valid for _, is_valid in results):
            untrusted_json.record_rejection("limit", "a counter that is no number")
        return [int(count) for count, _ in results]

    def get(self, key: str) -> int:
        value = self._call(lambda redis: redis.get(_KEY_PREFIX + key), lambda memory: memory.get(key))
        try:
            return int(value or 0)
        except ValueError as problem:  # the next increment replaces it
            untrusted_json.record_rejection("limit", problem)
            return 0

    def get_expiry(self, key: str) -> float:
        """When the counter expires, by this machine's clock; now if there is none."""
        return self._call(
            lambda redis: time.time() + max(0, redis.ttl(_KEY_PREFIX + key)), lambda memory: memory.get_expiry(key)
        )

    def check(self) -> bool:
        try:
            return bool(self._redis.call(lambda redis: redis.ping()))
        except CONNECTION_ERRORS:
            return False

    def reset(self) -> int:
        """Delete all counters; return how many there were."""
        keys = self._redis.call(lambda redis: list(redis.scan_iter(f"{_KEY_PREFIX}*", count=_SCAN_COUNT)))
        for key in keys:
            self._redis.call(lambda redis, key=key: redis.delete(key))
        return len(keys) + self._fallback.reset()

    def clear(self, key: str) -> None:
        self._call(lambda redis: redis.delete(_KEY_PREFIX + key), lambda memory: memory.clear(key))

    def _call(self, redis_call: Callable[[Any], T], fallback_call: Callable[[MemoryStorage], T]) -> T:
        try:
            result = self._redis.call(redis_call)
        except CONNECTION_ERRORS:
            metrics.limiter_in_memory.set(1)
            return fallback_call(self._fallback)
        metrics.limiter_in_memory.set(0)
        return result
