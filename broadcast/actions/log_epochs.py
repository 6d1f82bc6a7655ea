"""Start a new epoch of the log: every earlier cursor is answered with RESET.

Scheduled broadcasts then wait for a decision: they may have been sent in the part that was lost.
"""

from datetime import datetime

from broadcast.actions import notify, overdue_schedules
from broadcast.domain.actor import SYSTEM
from broadcast.store import audit, log
from broadcast.store.transactions import write_transaction


def start_epoch_after_loss(lost_epoch: str, *, now: datetime) -> bool:
    """Start a new epoch as committed events of `lost_epoch` are gone, unless another worker did; return whether."""
    with write_transaction() as session:
        new_epoch = log.start_epoch(session, expected_epoch=lost_epoch)
        if new_epoch:
            suspended_count = overdue_schedules.suspend_all(session, now=now)
            detail = {"lost": lost_epoch, "epoch": new_epoch, "plans": suspended_count}
            audit.record(session, SYSTEM, "log.epoch", "log", None, now=now, **detail)
    notify.notify_workers()
    return new_epoch is not None
