"""Counters of the limits in Redis: one server, behind Sentinels, or a cluster.

The stores that come with `limits` connect while they are made, and a cluster's refuses to be made while the cluster is away.
These ask as the bus does, by the client of the whole worker. While Redis does not answer or refuses, this worker counts by
itself, from nothing; flask-limiter's own fallback would look only after up to half a minute whether Redis is back.
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from limits.storage import MemoryStorage, Storage

from broadcast.base import untrusted_json
from broadcast.bus.redis_client import CONNECTION_ERRORS, CircuitBreaker
from broadcast.observability import metrics

T = TypeVar("T")
_KEY_PREFIX = "broadcast:limit:"
_SCAN_COUNT = 500
# in one step, so that no counter stays without an end and shuts somebody out for ever
# What stands there may be of another kind, no number, or without an end: somebody else wrote it, and it is replaced or ended.
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


class RedisLimitStorage(Storage):
    """A `limits` storage for its fixed-window strategy."""

    STORAGE_SCHEME = ["broadcast+redis"]

    def __init__(self, uri: str, *, redis: CircuitBreaker, wrap_exceptions: bool = False, **_: Any):
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._redis, self._fallback = redis, MemoryStorage()

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        return CONNECTION_ERRORS

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count and return the count; it ends `expiry` seconds after the first."""
        count, is_valid = self._call(
            lambda redis: redis.eval(_INCREMENT_SCRIPT, 1, _KEY_PREFIX + key, expiry, amount),
            lambda memory: (memory.incr(key, expiry, amount), True),
        )
        if not is_valid:
            untrusted_json.record_rejection("limit", "a counter that is no number")
        return int(count)

    def get(self, key: str) -> int:
        value = self._call(lambda redis: redis.get(_KEY_PREFIX + key), lambda memory: memory.get(key))
        try:
            return int(value or 0)
        except ValueError as problem:  # the next count replaces it
            untrusted_json.record_rejection("limit", problem)
            return 0

    def get_expiry(self, key: str) -> float:
        """When the count ends, as a time of this machine; now if there is none."""
        return self._call(
            lambda redis: time.time() + max(0, redis.ttl(_KEY_PREFIX + key)), lambda memory: memory.get_expiry(key)
        )

    def check(self) -> bool:
        try:
            return bool(self._redis.call(lambda redis: redis.ping()))
        except CONNECTION_ERRORS:
            return False

    def reset(self) -> int:
        """Forget every count; return how many there were."""
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
