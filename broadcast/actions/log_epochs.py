"""A new epoch of the log: every cursor given out before it is answered with RESET, never with silence. Plans wait for a
decision then: they may have gone out in what was lost.
"""

from datetime import datetime

from broadcast.actions import audit, notify, overdue_schedules
from broadcast.domain.actor import SYSTEM
from broadcast.store import log
from broadcast.store.database import writing


def begin_after_loss(epoch: str, *, now: datetime) -> bool:
    """Begin a new epoch because committed events of `epoch` are gone, as after a fail-over to a standby that was behind, or
    when an older database was put in its place.

    Many workers find out at the same time: the first begins it, for the others it has begun. Returns whether this call did.
    Raises Busy.
    """
    with writing() as session:
        begun = log.start_epoch(session, instead_of=epoch)
        if begun:
            count = overdue_schedules.hold_back_all(session, now=now)
            audit.record(session, SYSTEM, "log.epoch", "log", None, now=now, lost=epoch, epoch=begun, plans=count)
    notify.ring()
    return begun is not None
