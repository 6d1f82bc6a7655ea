"""Remembers counts that were expensive, for as long as they are worth: counting takes at most a twentieth of a worker's time.

A count that took less than a few milliseconds is never kept, so small systems always see the present.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from broadcast.base.app_parts import AppPart

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

CHEAP_SECONDS = 0.02
_WORTH = 20  # times what it cost; a count of a second is renewed every twenty seconds
_MOST = 2000  # counts kept; the longest unused go first


class Counted:
    """One worker's counts. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()

    def get(self, key: Hashable, count: Callable[[], T], *, lasting: bool = False) -> T:
        """Return what is kept under `key`, or count anew. What `count` raises is raised, and nothing is kept.

        `lasting` is for a key that names the state it was counted in: such a count never grows old.
        """
        began = self._clock()
        if self._is_kept(key, began):
            return self._kept[key][1]
        value = count()
        took = self._clock() - began
        self._keep(key, value, took, math.inf if lasting else began + took * (1 + _WORTH))
        return value

    def get_many(
        self, keys: Sequence[K], count: Callable[[Sequence[K]], Mapping[K, T]], *, weigh: Callable[[T], float]
    ) -> dict[K, T]:
        """The same for many keys whose counts are made together: `count` is called once, for those that are not kept.

        What it took is shared out by `weigh`: one large count among small ones is kept, the small ones are made anew.
        """
        began = self._clock()
        found = {key: self._kept[key][1] for key in keys if self._is_kept(key, began)}
        if missing := [key for key in keys if key not in found]:
            fresh = count(missing)
            took, total = self._clock() - began, sum(map(weigh, fresh.values())) or 1
            for key, value in fresh.items():
                share = took * weigh(value) / total
                self._keep(key, value, share, began + took + share * _WORTH)
            found |= fresh
        return found

    def _is_kept(self, key: Hashable, now: float) -> bool:
        if key not in self._kept or self._kept[key][0] <= now:
            return False
        self._kept.move_to_end(key)
        return True

    def _keep(self, key: Hashable, value: Any, took: float, good_until: float) -> None:
        self._kept.pop(key, None)
        if took > CHEAP_SECONDS:
            self._kept[key] = (good_until, value)
            if len(self._kept) > _MOST:
                self._kept.popitem(last=False)


COUNT_CACHE = AppPart[Counted]("counted")
