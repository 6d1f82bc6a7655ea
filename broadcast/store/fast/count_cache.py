"""A cache of expensive counts, limited so that counting takes at most a twentieth of a worker's time.

A count that took less than a few milliseconds is never cached, so small systems always see current numbers.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from broadcast.base.app_parts import AppPart

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

MIN_CACHED_SECONDS = 0.02
_LIFETIME_FACTOR = 20  # times its cost; a count that took a second is renewed every twenty seconds
_MAX_ENTRIES = 2000  # least recently used go first


class CountCache:
    """One worker's counts. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()

    def get(self, key: Hashable, count: Callable[[], T], *, is_permanent: bool = False) -> T:
        """Return the cached value of `key`, or count anew. An exception of `count` propagates, and nothing is cached.

        `is_permanent` is for a key that contains the version it was counted at: such a count never expires.
        """
        return self.get_many([key], lambda _: {key: count()}, weigh=lambda _: 1, is_permanent=is_permanent)[key]

    def get_many(
        self,
        keys: Sequence[K],
        count: Callable[[Sequence[K]], Mapping[K, T]],
        *,
        weigh: Callable[[T], float],
        is_permanent: bool = False,
    ) -> dict[K, T]:
        """The same for many keys that are counted together: `count` is called once, for those that are not cached.

        Its cost is distributed by `weigh`: one large count among small ones is cached, the small ones are counted anew.
        """
        started_at = self._clock()
        counts = {key: self._entries[key][1] for key in keys if self._has_fresh(key, started_at)}
        if missing_keys := [key for key in keys if key not in counts]:
            fresh_counts = count(missing_keys)
            cost_seconds, total_weight = self._clock() - started_at, sum(map(weigh, fresh_counts.values())) or 1
            for key, value in fresh_counts.items():
                cost_share = cost_seconds * weigh(value) / total_weight
                lifetime_seconds = math.inf if is_permanent else cost_share * _LIFETIME_FACTOR
                self._store(key, value, cost_share, started_at + cost_seconds + lifetime_seconds)
            counts |= fresh_counts
        return counts

    def _has_fresh(self, key: Hashable, now: float) -> bool:
        if key not in self._entries or self._entries[key][0] <= now:
            return False
        self._entries.move_to_end(key)
        return True

    def _store(self, key: Hashable, value: Any, cost_seconds: float, expires_at: float) -> None:
        self._entries.pop(key, None)
        if cost_seconds > MIN_CACHED_SECONDS:
            self._entries[key] = (expires_at, value)
            if len(self._entries) > _MAX_ENTRIES:
                self._entries.popitem(last=False)


COUNT_CACHE = AppPart[CountCache]("counted")
