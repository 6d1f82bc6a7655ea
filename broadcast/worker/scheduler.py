"""The clock: what is due goes out, what is over ends, what slept comes back. Every worker runs it; who gets the rows does it.

Many go in one transaction, with one lock of the log and one write to the disk. They are claimed inside it (who is due is
looked at under the lock), by one worker at a time: so each fires once, and in the order of its time.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

import gevent
import structlog

from broadcast.actions import broadcasts as actions
from broadcast.actions import overdue_schedules
from broadcast.actions import receipts as receipt_actions
from broadcast.base.errors import TemporarilyUnavailable
from broadcast.domain.lifecycle import Status
from broadcast.domain.overdue_schedules import SCHEDULE_GRACE
from broadcast.store import broadcasts, receipts

_log = structlog.get_logger(__name__)

_RETRY_DELAY = timedelta(seconds=2)  # what is due still: it failed, is being edited, or another worker is at it
_BATCH_PAUSE_SECONDS = 0.02  # between two batches: a writer of another worker looks for SQLite's lock about as often


def tick(now: datetime, *, grace: timedelta = SCHEDULE_GRACE) -> datetime | None:
    """Do what is due at `now`; return when there is something to do next, None when nothing is planned. Raises
    TemporarilyUnavailable.

    What is overdue by more than `grace` is not sent by itself any more, nor what fell due in a standstill that was longer.

    Runs inside an application context. One broadcast that fails does not hold up the others. Lets other greenlets run.
    """
    overdue_schedules.record_scheduler_run(now=now, grace=grace)
    _process_due(actions.expire_due, Status.ACTIVE, now)
    _process_due(partial(actions.release_due, grace=grace), Status.SCHEDULED, now)
    next_at = broadcasts.get_next_due_at()
    if next_at is not None and next_at <= now:
        next_at = now + _RETRY_DELAY
    wake_at = receipts.get_next_snooze_end()
    if wake_at is not None and wake_at <= now:
        receipt_actions.notify_ended_snoozes(now)
        wake_at = receipts.get_next_snooze_end()
    return min(filter(None, (next_at, wake_at)), default=None)


def _process_due(action: Callable[..., list[int] | None], status: Status, now: datetime) -> None:
    """Act on all that is due in this status, oldest first, until nothing is left or another worker's clock is at it."""
    failed_ids: list[int] = []
    while ids := broadcasts.list_due_ids(status, now, excluded_ids=failed_ids):
        done_ids = _process_batch(action, ids, now)
        if done_ids is None:
            return
        failed_ids += set(ids) - set(done_ids)
        gevent.sleep(_BATCH_PAUSE_SECONDS)


def _process_batch(action: Callable[..., list[int] | None], ids: Sequence[int], now: datetime) -> list[int] | None:
    """Act on these together; if that fails, on one after the other, so that one bad row does not hold up the rest."""
    try:
        return action(ids, now=now)
    except TemporarilyUnavailable:
        raise
    except Exception as problem:
        if len(ids) == 1:
            _log.exception("clock.failed", broadcast=ids[0])
            return []
        _log.warning("clock.one_by_one", broadcasts=len(ids), problem=f"{type(problem).__name__}: {problem}"[:300])
    return [done_id for broadcast_id in ids for done_id in _process_batch(action, [broadcast_id], now) or ()]
