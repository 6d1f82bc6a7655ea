"""Sends what waits in the outbox by one channel. Every worker runs it; whoever claims a delivery sends it.

Nothing is sent inside a transaction. A worker that dies after the server took a message and before that was recorded
leaves it to be sent again, under the same id.
"""

import random
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import gevent
import structlog
from gevent.pool import Pool
from sqlalchemy.orm import Session

from broadcast.channels.escalation import wants_email
from broadcast.channels.protocol import TIMEOUT_SECONDS, Accepted, Channel, Gone, Message, Outcome, Refused, Retry
from broadcast.domain import clock
from broadcast.domain.card import Card
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Priority
from broadcast.observability import metrics
from broadcast.store import deliveries, email_addresses, escalation
from broadcast.store.database import db
from broadcast.store.deliveries import ClaimedDelivery
from broadcast.store.escalation import Recipient
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction

_log = structlog.get_logger(__name__)

MAX_AGE = timedelta(days=3)  # of a delivery of a message without an end
_BATCH_SIZE = 8  # sent at the same time, and at most this many are sent again after a crash
_LEASE = timedelta(seconds=5 * TIMEOUT_SECONDS)
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 20.0, 900.0
_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 4.0, 60.0  # while the server is down


class _Unsent(NamedTuple):
    """How a delivery ends that is not sent any more."""

    state: str
    reason: str


class Outbox:
    """One worker's sender for one channel. Once `is_stopping`, it ends what it has begun, and claims nothing more."""

    def __init__(self, channel: Channel):
        self.channel = channel
        self.is_stopping = False
        self._pool = Pool(_BATCH_SIZE)

    def run_once(self) -> None:
        """Send all that is due, unless the channel is paused or its server is down. Needs an application context.

        Raises TemporarilyUnavailable.
        """
        while not self.is_stopping and deliveries.has_due(self.channel.name, now=clock.now()):
            if deliveries.get_settings(self.channel.name).paused_at or not self._send_batch():
                return

    def _send_batch(self) -> bool:
        """Claim, send and settle a few deliveries; False when the server is down, or others have claimed them all."""
        now = clock.now()
        with write_transaction() as session:
            claimed = deliveries.claim(session, self.channel.name, now=now, until=now + _LEASE, limit=_BATCH_SIZE)
        if not claimed:
            return False
        prepared = list(self._prepare(claimed, now))
        db.session.rollback()  # no transaction stays open while the server takes its time
        messages = [message for _, message in prepared if isinstance(message, Message)]
        outcomes = dict(zip((message.id for message in messages), self._pool.map(self._send, messages), strict=True))
        now = clock.now()
        with write_transaction() as session:
            for delivery, message in prepared:
                if isinstance(message, Message):
                    self._settle(session, delivery, message, outcomes[message.id], now)
                elif isinstance(message, datetime):
                    deliveries.postpone(session, delivery, message)
                else:
                    self._finish(session, delivery, message.state, message.reason, now)
            is_up = self._record_health(session, outcomes.values(), now)
        gevent.sleep(0.001)  # other loops, between batches
        return is_up

    def _prepare(
        self, claimed: Sequence[ClaimedDelivery], now: datetime
    ) -> Iterator[tuple[ClaimedDelivery, Message | datetime | _Unsent]]:
        """Each delivery with what to send, until when to hold it, or why it is not sent."""
        for broadcast_id in sorted({delivery.broadcast_id for delivery in claimed}):
            own = [delivery for delivery in claimed if delivery.broadcast_id == broadcast_id]
            broadcast = escalation.get_broadcast(broadcast_id)
            if broadcast is None:  # deleted this moment, and its deliveries with it
                continue
            recipients = escalation.find_recipients(broadcast, [delivery.user_id for delivery in own])
            card = broadcast.to_card()
            for delivery in own:
                yield delivery, _decide(broadcast, card, recipients.get(delivery.user_id), delivery, now)

    def _send(self, message: Message) -> Outcome:
        try:
            with gevent.Timeout(TIMEOUT_SECONDS, False):
                return self.channel.send(message)
        except Exception:  # the others of its batch are sent, and settled
            _log.exception("outbox.failed", delivery=message.id)
            return Refused("An unexpected error. The log has it under outbox.failed.")
        return Retry(f"The server did not finish within {TIMEOUT_SECONDS:.0f} seconds.")

    def _settle(
        self, session: Session, delivery: ClaimedDelivery, message: Message, outcome: Outcome, now: datetime
    ) -> None:
        match outcome:
            case Accepted():
                self._finish(session, delivery, "SENT", None, now)
            case Retry() if now - delivery.created_at > MAX_AGE:
                reason = f"Given up after {delivery.attempts} attempts. {outcome.reason}"
                self._finish(session, delivery, "FAILED", reason, now)
            case Retry():
                metrics.delivery_outcomes.labels(self.channel.name, "retried").inc()
                due_at = now + timedelta(seconds=compute_delay(outcome, delivery.attempts))
                deliveries.postpone(session, delivery, due_at, reason=outcome.reason)
            case Gone() | Refused():
                if isinstance(outcome, Gone):
                    email_addresses.mark_failing(session, message.user_id, message.address, outcome.reason, at=now)
                self._finish(session, delivery, "FAILED", outcome.reason, now)

    def _finish(
        self, session: Session, delivery: ClaimedDelivery, state: str, reason: str | None, now: datetime
    ) -> None:
        metrics.delivery_outcomes.labels(self.channel.name, state.lower()).inc()
        deliveries.finish(session, delivery, state, at=now, reason=reason)

    def _record_health(self, session: Session, outcomes: Collection[Outcome], now: datetime) -> bool:
        """Record whether the server is down; True if it is not."""
        down = [outcome.reason for outcome in outcomes if isinstance(outcome, Retry) and outcome.is_server_down]
        if down:
            deliveries.set_problem(session, self.channel.name, down[0], at=now)
        elif outcomes:
            deliveries.set_problem(session, self.channel.name, None, at=now)
        return not down


def _decide(
    broadcast: Broadcast, card: Card, recipient: Recipient | None, delivery: ClaimedDelivery, now: datetime
) -> Message | datetime | _Unsent:
    if not escalation.is_escalating(broadcast, delivery.created_at, now=now):
        is_given_up = delivery.problem is not None and broadcast.status != Status.CANCELLED
        reason = f"The message has ended, or was shown again. {delivery.problem or ''}".strip()
        return _Unsent("FAILED" if is_given_up else "CANCELLED", reason)
    if recipient is None:
        return _Unsent("CANCELLED", "They have seen it, are no longer in the audience, or cannot be reached by e-mail.")
    if not wants_email(broadcast, recipient.preferences):
        return _Unsent("CANCELLED", "Their preferences exclude it.")
    if broadcast.priority != Priority.URGENT and (quiet_end := recipient.preferences.get_quiet_end(now)):
        return quiet_end
    return Message(delivery.message_id, card, recipient.user_id, recipient.name, recipient.address)


def compute_delay(outcome: Retry, attempts: int) -> float:
    """Seconds until the next attempt: twice as long each time, with jitter. A server that is down holds nothing up for
    long: as soon as it is back, everything goes out.
    """
    if outcome.after_seconds is not None:
        return outcome.after_seconds
    first, longest = (
        (_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS)
        if outcome.is_server_down
        else (_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS)
    )
    return min(longest, first * 2 ** min(attempts - 1, 10)) * random.uniform(0.5, 1)
