"""Sends what waits in the outbox by one channel. Every worker runs it; whoever claims a delivery sends it.

A delivery is for a user, and goes to each of their addresses. It is sent once one of them took it: nobody is alerted
again on one device because another is switched off. Nothing is sent inside a transaction. A worker that dies after the
server took a message and before that was recorded leaves it to be sent again, under the same id.
"""

import random
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import gevent
import structlog
from gevent.pool import Pool
from sqlalchemy.orm import Session

from broadcast.channels.escalation import is_wanted
from broadcast.channels.protocol import TIMEOUT_SECONDS, Accepted, Channel, Gone, Message, Outcome, Refused, Retry
from broadcast.domain import clock
from broadcast.domain.card import Card
from broadcast.domain.escalation import Awaited
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Priority
from broadcast.observability import metrics
from broadcast.store import deliveries, email_pace, escalation
from broadcast.store.database import db
from broadcast.store.deliveries import ClaimedDelivery, Settlement
from broadcast.store.escalation import Recipient
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction

_log = structlog.get_logger(__name__)

MAX_AGE = timedelta(days=3)  # of a delivery of a message without an end
_BATCH_SIZE = 24  # at most this many are sent again after a crash
_CONCURRENT_SENDS = 8
_MAX_SHARE = 1 / 3  # of the worker's time for sending, whose streams come first
LEASE = timedelta(seconds=5 * TIMEOUT_SECONDS)
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 20.0, 900.0
_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 4.0, 60.0  # while the server is down


class Unsent(NamedTuple):
    """How a delivery ends that is not sent any more."""

    state: str
    reason: str


class Outbox:
    """One worker's sender for one channel. Once `is_stopping`, it ends what it has begun, and claims nothing more."""

    def __init__(self, channel: Channel, *, max_per_minute: int = 0):
        """`max_per_minute` is shared by all workers; 0: no limit."""
        self.channel, self._max_per_minute = channel, max_per_minute
        self.queue = channel.name  # the channel of its deliveries
        self.is_stopping = False
        self._pool = Pool(_CONCURRENT_SENDS)

    def run_once(self) -> None:
        """Send all that is due, unless the channel is paused or its server is down. Needs an application context.

        Raises TemporarilyUnavailable.
        """
        while not self.is_stopping and deliveries.has_due(self.queue, now=clock.now()):
            settings, started_at = deliveries.get_settings(self.channel.name), time.thread_time()
            if settings.paused_at or not self._send_batch(settings.problem):
                return
            gevent.sleep((time.thread_time() - started_at) * (1 / _MAX_SHARE - 1))

    def _send_batch(self, known_problem: str | None) -> bool:
        """Claim, send and settle a few deliveries; False when none may be sent now: the server is down, others have
        claimed them all, or this minute's are sent.
        """
        now = clock.now()
        with write_transaction() as session:
            limit = min(_BATCH_SIZE, email_pace.count_allowed(session, self._max_per_minute, now=now))
            claimed = deliveries.claim(session, self.queue, now=now, until=now + LEASE, limit=limit)
            email_pace.record_sent(session, len(claimed), self._max_per_minute, now=now)
        if not claimed:
            return False
        prepared = list(self._prepare(claimed, now))
        db.session.rollback()  # no transaction stays open while the server takes its time
        messages = [message for _, decision in prepared if isinstance(decision, list) for message in decision]
        attempts = list(zip(messages, self._pool.map(self._send, messages), strict=True))
        now = clock.now()
        with write_transaction() as session:
            for message, outcome in attempts:
                if isinstance(outcome, Gone):
                    self.channel.disable_address(session, message.user_id, message.address, outcome.reason, at=now)
            settlements = [_settle(delivery, decision, attempts, now) for delivery, decision in prepared]
            deliveries.settle(session, settlements, at=now)
            is_up = self._record_health(session, [outcome for _, outcome in attempts], known_problem, now)
        for settlement, (_, decision) in zip(settlements, prepared, strict=True):
            if not isinstance(decision, datetime):  # held
                outcome = "retried" if settlement.state == "WAITING" else settlement.state.lower()
                metrics.delivery_outcomes.labels(self.queue, outcome).inc()
        return is_up

    def _prepare(
        self, claimed: Sequence[ClaimedDelivery], now: datetime
    ) -> Iterator[tuple[ClaimedDelivery, list[Message] | datetime | Unsent]]:
        """Each delivery with a message for each address, until when to hold it, or why it is not sent."""
        awaited = escalation.get_awaited({delivery.step_id for delivery in claimed})
        for broadcast_id, step_id in sorted({(delivery.broadcast_id, delivery.step_id) for delivery in claimed}):
            own = [
                delivery for delivery in claimed if (delivery.broadcast_id, delivery.step_id) == (broadcast_id, step_id)
            ]
            broadcast, awaits = escalation.get_broadcast(broadcast_id), awaited.get(step_id, Awaited.SEEN)
            if broadcast is None:  # deleted this moment, and its deliveries with it
                continue
            recipients = self._find_recipients(broadcast, awaits, [delivery.user_id for delivery in own])
            addresses, card = self.channel.load_addresses(recipients), broadcast.to_card()
            for delivery in own:
                recipient = recipients.get(delivery.user_id)
                yield (
                    delivery,
                    self._find_obstacle(broadcast, recipient, delivery, now)
                    or _build_messages(card, recipient, delivery, addresses.get(delivery.user_id, ()))
                    or Unsent("CANCELLED", f"They cannot be reached by {self.channel.label.lower()} any more."),
                )

    def _find_recipients(self, broadcast: Broadcast, awaits: Awaited, user_ids: Sequence[int]) -> dict[int, Recipient]:
        return escalation.find_recipients(broadcast, awaits, user_ids)

    def _find_obstacle(
        self, broadcast: Broadcast, recipient: Recipient | None, delivery: ClaimedDelivery, now: datetime
    ) -> datetime | Unsent | None:
        """Until when to hold a delivery, or why it is not sent; None if nothing is against it."""
        if not escalation.is_escalating(broadcast, delivery.created_at, now=now):
            is_given_up = delivery.problem is not None and broadcast.status != Status.CANCELLED
            reason = f"The message has ended, or was shown again. {delivery.problem or ''}".strip()
            return Unsent("FAILED" if is_given_up else "CANCELLED", reason)
        if recipient is None:
            return Unsent("CANCELLED", "They have done what it waits for, or are no longer in the audience.")
        if not is_wanted(self.channel, broadcast, recipient.preferences):
            return Unsent("CANCELLED", "Their preferences exclude it.")
        return None if broadcast.priority == Priority.URGENT else recipient.preferences.get_quiet_end(now)

    def _deliver(self, message: Message) -> Outcome:
        return self.channel.send(message)

    def _send(self, message: Message) -> Outcome:
        try:
            with gevent.Timeout(TIMEOUT_SECONDS, False):
                return self._deliver(message)
        except Exception:  # the others of its batch are sent, and settled
            _log.exception("outbox.failed", delivery=message.id)
            return Refused("An unexpected error. The log has it under outbox.failed.")
        return Retry(f"The server did not finish within {TIMEOUT_SECONDS:.0f} seconds.")

    def _record_health(
        self, session: Session, outcomes: Collection[Outcome], known_problem: str | None, now: datetime
    ) -> bool:
        """Record whether the server is down; True if it is not."""
        down = [outcome.reason for outcome in outcomes if isinstance(outcome, Retry) and outcome.is_server_down]
        if down or (outcomes and known_problem):
            deliveries.set_problem(session, self.channel.name, down[0] if down else None, at=now)
        return not down


def _build_messages(
    card: Card, recipient: Recipient, delivery: ClaimedDelivery, addresses: Sequence[Any]
) -> list[Message]:
    return [Message(delivery.message_id, card, recipient.user_id, recipient.name, address) for address in addresses]


def _settle(
    delivery: ClaimedDelivery,
    decision: list[Message] | datetime | Unsent,
    attempts: Sequence[tuple[Message, Outcome]],
    now: datetime,
) -> Settlement:
    if isinstance(decision, datetime):
        return Settlement(delivery, "WAITING", delivery.problem, decision)
    if isinstance(decision, Unsent):
        return Settlement(delivery, decision.state, decision.reason)
    match _combine([outcome for message, outcome in attempts if message.id == delivery.message_id]):
        case Accepted():
            return Settlement(delivery, "SENT")
        case Retry(reason=reason) if now - delivery.created_at > MAX_AGE:
            return Settlement(delivery, "FAILED", f"Given up after {delivery.attempts} attempts. {reason}")
        case Retry() as outcome:
            due_at = now + timedelta(seconds=compute_delay(outcome, delivery.attempts))
            return Settlement(delivery, "WAITING", outcome.reason, due_at)
        case outcome:
            return Settlement(delivery, "FAILED", outcome.reason)


def _combine(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome for a user, from those at their addresses: the best for them."""
    for kind in (Accepted, Retry, Refused):
        if of_kind := [outcome for outcome in outcomes if isinstance(outcome, kind)]:
            return of_kind[0]
    return outcomes[0]


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
