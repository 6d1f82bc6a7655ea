"""Buffers delivered and seen receipts, and writes them later, in batches that let other greenlets run."""

from collections.abc import Iterable
from datetime import datetime
from itertools import islice

import gevent
from gevent.event import Event as GeventEvent
from sqlalchemy.exc import IntegrityError

from broadcast.base.app_parts import AppPart
from broadcast.store import broadcasts, receipts
from broadcast.store.receipts import ReceiptTimestamp
from broadcast.store.transactions import write_transaction

_BATCH_ROWS = 1000  # rows in one transaction: it holds the only write lock of SQLite for some milliseconds
_PAUSE_SECONDS = 0.006  # longer than a batch: streams come first
_IDLE_TIMEOUT_SECONDS = 0.25  # with one fan-out after another a receipt is late, never lost
_MAX_DEFERRED_KEYS = 1000  # with more keys than this, waiting would only add to them


class ReceiptBuffer:
    """(broadcast, user) pairs of one worker that are not written yet, by receipt timestamp.

    A worker that dies loses only receipts that the user's next page or stream sets again.
    """

    def __init__(self) -> None:
        self._pending: dict[tuple[ReceiptTimestamp, int], set[int]] = {}

    def add(self, broadcast_id: int, user_ids: Iterable[int], *, mark: ReceiptTimestamp = "delivered_at") -> None:
        if ids := set(user_ids):
            self._pending.setdefault((mark, broadcast_id), set()).update(ids)

    def flush(self, now: datetime, *, fanout_idle: GeventEvent | None = None) -> None:
        """Write everything that is buffered. Lets other greenlets run between batches. Raises TemporarilyUnavailable,
        which loses nothing.

        `fanout_idle` is set while no message is being sent to streams: each batch waits for it, but not for long, and
        not if very much is buffered. Concurrent flushes are safe: both write the same.
        """
        while batch := self._next_batch():
            if fanout_idle is not None and not fanout_idle.is_set() and len(self._pending) <= _MAX_DEFERRED_KEYS:
                fanout_idle.wait(_IDLE_TIMEOUT_SECONDS)
            mark, pairs = batch
            try:
                with write_transaction() as session:
                    receipts.set_timestamp(session, pairs, mark, at=now)
            except IntegrityError:  # retention has deleted a broadcast; its receipts must not block the others
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
        """A batch of pairs from as many broadcasts as fit: Kafka may bring hundreds per second, to few users each."""
        mark = next((mark for mark, _ in self._pending), None)
        pairs = (
            (broadcast_id, user_id)
            for (pending_mark, broadcast_id), user_ids in self._pending.items()
            if pending_mark == mark
            for user_id in user_ids
        )
        return mark and (mark, list(islice(pairs, _BATCH_ROWS)))


RECEIPT_BUFFER = AppPart[ReceiptBuffer]("receipt_buffer")
