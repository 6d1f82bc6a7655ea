"""The scheduler: sends due broadcasts, expires ended ones, brings snoozed messages back. Every worker runs it; whoever
claims the rows does the work.

Many broadcasts go in one transaction, with one lock of the log and one disk write. They are claimed inside it, under
the lock, by one worker at a time: so each is sent once, in the order of its time.
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

_RETRY_DELAY = timedelta(seconds=2)  # for what is still due: it failed, is being edited, or another worker processes it
_BATCH_PAUSE_SECONDS = 0.02  # between batches: another worker's writer polls for SQLite's lock about as often


def tick(now: datetime, *, grace: timedelta = SCHEDULE_GRACE) -> datetime | None:
    """Process what is due at `now`; return when something is due next, None when nothing is scheduled. Raises
    TemporarilyUnavailable.

    A broadcast overdue by more than `grace` is not sent automatically, nor one that fell due in a longer standstill.

    Needs an application context. A failing broadcast does not delay the others. Lets other greenlets run.
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
    """Process all that is due in this status, oldest first, until nothing is left or another worker processes it."""
    failed_ids: list[int] = []
    while ids := broadcasts.list_due_ids(status, now, excluded_ids=failed_ids):
        done_ids = _process_batch(action, ids, now)
        if done_ids is None:
            return
        failed_ids += set(ids) - set(done_ids)
        gevent.sleep(_BATCH_PAUSE_SECONDS)


def _process_batch(action: Callable[..., list[int] | None], ids: Sequence[int], now: datetime) -> list[int] | None:
    """Process a batch; if that fails, one by one, so that a bad row does not block the rest."""
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
