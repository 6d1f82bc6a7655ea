"""A new epoch of the log: every cursor given out before it is answered with RESET, never with silence. Plans wait for a
decision then: they may have gone out in what was lost.
"""

from datetime import datetime

from broadcast.actions import audit, notify, overdue_schedules
from broadcast.domain.actor import SYSTEM
from broadcast.store import log
from broadcast.store.database import write_transaction


def start_epoch_after_loss(lost_epoch: str, *, now: datetime) -> bool:
    """Begin a new epoch because committed events of `lost_epoch` are gone, as after a fail-over to a standby that was
    behind, or when an older database was put in its place.

    Many workers find out at the same time: the first begins it, for the others it has begun. Returns whether this call did.
    Raises TemporarilyUnavailable.
    """
    with write_transaction() as session:
        new_epoch = log.start_epoch(session, expected_epoch=lost_epoch)
        if new_epoch:
            suspended_count = overdue_schedules.suspend_all(session, now=now)
            audit.record(
                session,
                SYSTEM,
                "log.epoch",
                "log",
                None,
                now=now,
                lost=lost_epoch,
                epoch=new_epoch,
                plans=suspended_count,
            )
    notify.notify_workers()
    return new_epoch is not None
