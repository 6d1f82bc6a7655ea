"""What administrators do with a channel: pause it, and try failed deliveries again."""

from collections.abc import Sequence
from datetime import datetime

from broadcast.domain.actor import Actor
from broadcast.domain.permissions import Permission
from broadcast.store import audit, deliveries
from broadcast.store.transactions import write_transaction


def set_paused(channel: str, is_paused: bool, *, by: Actor, now: datetime) -> None:
    """Keep everything in the queue from now on, or send again. Raises Forbidden, TemporarilyUnavailable."""
    by.require(Permission.OPERATE)
    with write_transaction() as session:
        row = deliveries.get_settings_for_update(session, channel)
        if is_paused == (row.paused_at is not None):
            return
        row.paused_at = now if is_paused else None
        audit.record(session, by, "channel.paused" if is_paused else "channel.resumed", "channel", channel, now=now)


def retry_failed(channel: str, ids: Sequence[int], *, by: Actor, now: datetime) -> int:
    """Put these failed deliveries back into the queue; return how many were. Raises Forbidden, TemporarilyUnavailable."""
    by.require(Permission.OPERATE)
    with write_transaction() as session:
        count = deliveries.retry_failed(session, channel, ids, now=now)
        if count:
            audit.record(session, by, "channel.retried", "channel", channel, now=now, deliveries=count)
    return count
