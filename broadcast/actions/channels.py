"""What administrators do with a channel: pause it, say when it is used, and try failed deliveries again."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from broadcast.base.errors import Invalid
from broadcast.domain.actor import Actor
from broadcast.domain.message import Priority
from broadcast.domain.permissions import Permission
from broadcast.store import audit, deliveries
from broadcast.store.models import ChannelSettings
from broadcast.store.transactions import write_transaction

MAX_DELAY_MINUTES = 7 * 24 * 60


def set_paused(channel: str, is_paused: bool, *, by: Actor, now: datetime) -> None:
    """Keep everything in the queue from now on, or send again. Raises Forbidden, TemporarilyUnavailable."""
    by.require(Permission.OPERATE)
    with write_transaction() as session:
        deliveries.add_settings(session, channel)
        row = session.get(ChannelSettings, channel)
        if is_paused == (row.paused_at is not None):
            return
        row.paused_at = now if is_paused else None
        audit.record(session, by, "channel.paused" if is_paused else "channel.resumed", "channel", channel, now=now)


def set_delays(channel: str, minutes_by_priority: Mapping[Priority, int | None], *, by: Actor, now: datetime) -> None:
    """Set after how many minutes without *seen* the channel is used, for broadcasts sent from now on; None: never.

    Raises Forbidden, Invalid, TemporarilyUnavailable.
    """
    by.require(Permission.OPERATE)
    delays = {name.value: minutes for name, minutes in minutes_by_priority.items() if minutes is not None}
    if wrong := [name for name, minutes in delays.items() if not 0 <= minutes <= MAX_DELAY_MINUTES]:
        raise Invalid(dict.fromkeys(wrong, f"Type minutes from 0 to {MAX_DELAY_MINUTES:,}, or nothing."))
    delays = {name: minutes * 60 for name, minutes in delays.items()}
    with write_transaction() as session:
        deliveries.add_settings(session, channel)
        row = session.get(ChannelSettings, channel)
        if row.delays != delays:
            audit.record(session, by, "channel.delays", "channel", channel, now=now, before=row.delays, after=delays)
            row.delays = delays


def retry_failed(channel: str, ids: Sequence[int], *, by: Actor, now: datetime) -> int:
    """Put these failed deliveries back into the queue; return how many were. Raises Forbidden, TemporarilyUnavailable."""
    by.require(Permission.OPERATE)
    with write_transaction() as session:
        count = deliveries.retry_failed(session, channel, ids, now=now)
        if count:
            audit.record(session, by, "channel.retried", "channel", channel, now=now, deliveries=count)
    return count
