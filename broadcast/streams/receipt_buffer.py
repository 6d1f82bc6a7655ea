"""Remembers who was shown what and who had it in view, and writes that down later, in batches that let others run."""

from collections.abc import Iterable
from datetime import datetime
from itertools import islice

import gevent
from gevent.event import Event as Flag
from sqlalchemy.exc import IntegrityError

from broadcast.base.app_parts import AppPart
from broadcast.domain.events import Event
from broadcast.store import broadcasts, receipts
from broadcast.store.database import writing
from broadcast.store.receipts import Mark

_BATCH = 200  # rows in one transaction: it holds SQLite's only write lock for a few milliseconds
_PAUSE_SECONDS = 0.006  # longer than a batch: streams come first
_PATIENCE_SECONDS = 0.25  # with fan-outs one after another a mark is late, never lost
_MANY = 1000  # with marks of more broadcasts than this they would only become more


class Deliveries:
    """(broadcast, person) pairs of one worker that are not written yet, by mark.

    What is lost with a worker that dies is a mark, which the person's next page or stream makes good.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[Mark, int], set[int]] = {}

    def add(self, broadcast_id: int, user_ids: Iterable[int], *, mark: Mark = "delivered_at") -> None:
        if ids := set(user_ids):
            self._waiting.setdefault((mark, broadcast_id), set()).update(ids)

    def add_event(self, event: Event, user_ids: Iterable[int]) -> None:
        """The same, as the hub tells it."""
        self.add(event.broadcast_id, user_ids)

    def flush(self, now: datetime, *, calm: Flag | None = None) -> None:
        """Write everything that waits. Lets other greenlets run between batches. Raises Busy; nothing is lost by that.

        `calm` is set while no message is on its way to streams: each batch waits for it, but not for long, and not while
        very much waits. Two may flush at once; what both write is the same.
        """
        while batch := self._next():
            if calm is not None and not calm.is_set() and len(self._waiting) <= _MANY:
                calm.wait(_PATIENCE_SECONDS)
            mark, pairs = batch
            try:
                with writing() as session:
                    receipts.mark(session, pairs, mark, at=now)
            except (
                IntegrityError
            ):  # retention took one of the broadcasts meanwhile: its marks must not hold up the others
                gone = {broadcast_id for broadcast_id, _ in pairs if broadcasts.by_id(broadcast_id) is None}
                if not gone:
                    raise
                pairs = [pair for pair in pairs if pair[0] in gone]
            self._forget(mark, pairs)
            gevent.sleep(_PAUSE_SECONDS)

    def _forget(self, mark: Mark, pairs: Iterable[tuple[int, int]]) -> None:
        for broadcast_id, user_id in pairs:
            waiting = self._waiting.get((mark, broadcast_id), set())
            waiting.discard(user_id)
            if not waiting:
                self._waiting.pop((mark, broadcast_id), None)

    def _next(self) -> tuple[Mark, list[tuple[int, int]]] | None:
        """A batch of pairs, of as many broadcasts as fit: hundreds may come in a second from Kafka, to few people each."""
        mark = next((mark for mark, _ in self._waiting), None)
        pairs = (
            (broadcast_id, user_id)
            for (kind, broadcast_id), ids in self._waiting.items()
            if kind == mark
            for user_id in ids
        )
        return mark and (mark, list(islice(pairs, _BATCH)))


RECEIPT_BUFFER = AppPart[Deliveries]("deliveries")
