"""Corrections: after a recall, a short message to exactly those who got one about the broadcast, by the same channel."""

from collections.abc import Sequence
from datetime import datetime

import gevent

from broadcast.channels.outbox import LEASE, Outbox, Unsent
from broadcast.channels.protocol import Channel, Message, Outcome
from broadcast.domain.escalation import Awaited
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Priority
from broadcast.store import corrections
from broadcast.store.deliveries import ClaimedDelivery
from broadcast.store.escalation import Recipient
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction

_PAUSE_SECONDS = 0.005  # between transactions: other writers go first


def plan_all(*, now: datetime) -> None:
    """Put the corrections of recalled broadcasts into the outbox. Raises TemporarilyUnavailable."""
    for broadcast_id in corrections.list_unfinished():
        with write_transaction() as session:
            may_plan = corrections.may_plan(session, broadcast_id, lease=LEASE, now=now)
        position = corrections.START if may_plan else None
        while position is not None:
            with write_transaction() as session:
                position = corrections.plan_batch(session, broadcast_id, position, now=now)
            gevent.sleep(_PAUSE_SECONDS)


class CorrectionOutbox(Outbox):
    """The outbox of one channel's corrections. Pausing the channel pauses them, too."""

    def __init__(self, channel: Channel, *, max_per_minute: int = 0):
        super().__init__(channel, max_per_minute=max_per_minute)
        self.queue = corrections.QUEUES[channel.name]

    def _find_recipients(self, broadcast: Broadcast, awaits: Awaited, user_ids: Sequence[int]) -> dict[int, Recipient]:
        return corrections.find_recipients(user_ids)

    def _find_obstacle(
        self, broadcast: Broadcast, recipient: Recipient | None, delivery: ClaimedDelivery, now: datetime
    ) -> datetime | Unsent | None:
        if broadcast.status != Status.CANCELLED:
            return Unsent("CANCELLED", "The message is not recalled.")
        if recipient is None:
            return Unsent("CANCELLED", "Their account is disabled.")
        if recipient.preferences.has_turned_off(self.channel.name):
            return Unsent("CANCELLED", "Their preferences exclude it.")
        return None if broadcast.priority == Priority.URGENT else recipient.preferences.get_quiet_end(now)

    def _deliver(self, message: Message) -> Outcome:
        return self.channel.send_correction(message)
