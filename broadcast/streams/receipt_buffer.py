"""Remembers who was shown what and who had it in view, and writes that down later, in batches that let others run."""

from collections.abc import Iterable
from datetime import datetime
from itertools import islice

import gevent
from gevent.event import Event as GeventEvent
from sqlalchemy.exc import IntegrityError

from broadcast.base.app_parts import AppPart
from broadcast.domain.events import Event
from broadcast.store import broadcasts, receipts
from broadcast.store.database import write_transaction
from broadcast.store.receipts import ReceiptTimestamp

_BATCH_ROWS = 200  # rows in one transaction: it holds SQLite's only write lock for a few milliseconds
_PAUSE_SECONDS = 0.006  # longer than a batch: streams come first
_IDLE_TIMEOUT_SECONDS = 0.25  # with fan-outs one after another a mark is late, never lost
_MAX_DEFERRED_KEYS = 1000  # with marks of more broadcasts than this they would only become more


class ReceiptBuffer:
    """(broadcast, person) pairs of one worker that are not written yet, by mark.

    What is lost with a worker that dies is a mark, which the person's next page or stream makes good.
    """

    def __init__(self) -> None:
        self._pending: dict[tuple[ReceiptTimestamp, int], set[int]] = {}

    def add(self, broadcast_id: int, user_ids: Iterable[int], *, mark: ReceiptTimestamp = "delivered_at") -> None:
        if ids := set(user_ids):
            self._pending.setdefault((mark, broadcast_id), set()).update(ids)

    def add_delivered(self, event: Event, user_ids: Iterable[int]) -> None:
        """The same, as the hub tells it."""
        self.add(event.broadcast_id, user_ids)

    def flush(self, now: datetime, *, fanout_idle: GeventEvent | None = None) -> None:
        """Write everything that waits. Lets other greenlets run between batches. Raises TemporarilyUnavailable;
        nothing is lost by that.

        `fanout_idle` is set while no message is on its way to streams: each batch waits for it, but not for long, and not while
        very much waits. Two may flush at once; what both write is the same.
        """
        while batch := self._next_batch():
            if fanout_idle is not None and not fanout_idle.is_set() and len(self._pending) <= _MAX_DEFERRED_KEYS:
                fanout_idle.wait(_IDLE_TIMEOUT_SECONDS)
            mark, pairs = batch
            try:
                with write_transaction() as session:
                    receipts.set_timestamp(session, pairs, mark, at=now)
            except (
                IntegrityError
            ):  # retention took one of the broadcasts meanwhile: its marks must not hold up the others
                deleted_ids = {broadcast_id for broadcast_id, _ in pairs if broadcasts.get(broadcast_id) is None}
                if not deleted_ids:
                    raise
                pairs = [pair for pair in pairs if pair[0] in deleted_ids]
            self._discard(mark, pairs)
            gevent.sleep(_PAUSE_SECONDS)

    def _discard(self, mark: ReceiptTimestamp, pairs: Iterable[tuple[int, int]]) -> None:
        for broadcast_id, user_id in pairs:
            user_ids = self._pending.get((mark, broadcast_id), set())
            user_ids.discard(user_id)
            if not user_ids:
                self._pending.pop((mark, broadcast_id), None)

    def _next_batch(self) -> tuple[ReceiptTimestamp, list[tuple[int, int]]] | None:
        """A batch of pairs, of as many broadcasts as fit: hundreds may come in a second from Kafka, to few people each."""
        mark = next((mark for mark, _ in self._pending), None)
        pairs = (
            (broadcast_id, user_id)
            for (pending_mark, broadcast_id), user_ids in self._pending.items()
            if pending_mark == mark
            for user_id in user_ids
        )
        return mark and (mark, list(islice(pairs, _BATCH_ROWS)))


RECEIPT_BUFFER = AppPart[ReceiptBuffer]("deliveries")
