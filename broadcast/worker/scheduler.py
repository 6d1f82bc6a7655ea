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
from broadcast.base.errors import Busy
from broadcast.domain.lifecycle import Status
from broadcast.domain.overdue_schedules import GRACE
from broadcast.store import broadcasts, receipts

_log = structlog.get_logger(__name__)

_AGAIN = timedelta(seconds=2)  # what is due still: it failed, is being edited, or another worker is at it
_REST_SECONDS = 0.02  # between two batches: a writer of another worker looks for SQLite's lock about as often


def tick(now: datetime, *, grace: timedelta = GRACE) -> datetime | None:
    """Do what is due at `now`; return when there is something to do next, None when nothing is planned. Raises Busy.

    What is overdue by more than `grace` is not sent by itself any more, nor what fell due in a standstill that was longer.

    Runs inside an application context. One broadcast that fails does not hold up the others. Lets other greenlets run.
    """
    overdue_schedules.notice_standstill(now=now, grace=grace)
    _do(actions.expire_due, Status.ACTIVE, now)
    _do(partial(actions.release_due, grace=grace), Status.SCHEDULED, now)
    next_at = broadcasts.next_due_at()
    if next_at is not None and next_at <= now:
        next_at = now + _AGAIN
    wake_at = receipts.next_wake_at()
    if wake_at is not None and wake_at <= now:
        receipt_actions.wake(now)
        wake_at = receipts.next_wake_at()
    return min(filter(None, (next_at, wake_at)), default=None)


def _do(act: Callable[..., list[int] | None], status: Status, now: datetime) -> None:
    """Act on all that is due in this status, oldest first, until nothing is left or another worker's clock is at it."""
    left: list[int] = []
    while ids := broadcasts.due(status, now, but_not=left):
        done = _try(act, ids, now)
        if done is None:
            return
        left += set(ids) - set(done)
        gevent.sleep(_REST_SECONDS)


def _try(act: Callable[..., list[int] | None], ids: Sequence[int], now: datetime) -> list[int] | None:
    """Act on these together; if that fails, on one after the other, so that one bad row does not hold up the rest."""
    try:
        return act(ids, now=now)
    except Busy:
        raise
    except Exception as problem:
        if len(ids) == 1:
            _log.exception("clock.failed", broadcast=ids[0])
            return []
        _log.warning("clock.one_by_one", broadcasts=len(ids), problem=f"{type(problem).__name__}: {problem}"[:300])
    return [done for one in ids for done in _try(act, [one], now) or ()]
