"""Digests: one mail of all that is unread, each hour or each day, to who wants it.

The clock of the database row decides: it moves on to the next period in the transaction that records what became of
this one, so that each period has one digest, whatever is killed. A worker that dies after the server took a mail and
before that was recorded leaves it to be sent again, under the same Message-ID.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import gevent
import structlog
from gevent.pool import Pool
from sqlalchemy.orm import Session

from broadcast.channels.email import EmailChannel
from broadcast.channels.protocol import TIMEOUT_SECONDS, Accepted, Gone, Outcome, Refused, Retry, is_server_down
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.card import Card
from broadcast.domain.preferences import Preferences
from broadcast.store import deliveries, digests, email_addresses, email_pace, users
from broadcast.store.database import db
from broadcast.store.digests import ClaimedDigest
from broadcast.store.transactions import write_transaction

_log = structlog.get_logger(__name__)

MAX_MESSAGES = 30  # in one digest; the others are counted there, and wait for the next one
_BATCH_SIZE, _CONCURRENT_SENDS = 16, 8
_LEASE = timedelta(seconds=5 * TIMEOUT_SECONDS)
_RETRY_AFTER = timedelta(minutes=1)
_MAX_AGE = timedelta(hours=12)  # then the next digest has it all
_MAX_SHARE = 1 / 3  # of the worker's time, as `outbox`


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest to send. `more` messages are unread besides its cards."""

    claimed: ClaimedDigest
    name: str
    address: str
    cards: Sequence[Card]
    more: int


class _Prepared(NamedTuple):
    """A claimed digest, when the next one is due, and what is in this one: a time holds it (quiet hours), None ends it."""

    claimed: ClaimedDigest
    next_at: datetime | None
    content: Digest | datetime | None


class DigestSender:
    """One worker's sender. Once `is_stopping`, it ends what it has begun, and claims nothing more."""

    def __init__(self, channel: EmailChannel, *, max_per_minute: int = 0):
        self.channel, self._max_per_minute = channel, max_per_minute
        self.is_stopping = False
        self._pool = Pool(_CONCURRENT_SENDS)

    def run_once(self) -> None:
        """Send all digests that are due, unless e-mail is paused or its server is down. Needs an application context.

        Raises TemporarilyUnavailable.
        """
        while not self.is_stopping and digests.has_due(now=clock.now()):
            started_at = time.thread_time()
            if deliveries.get_settings(self.channel.name).paused_at or not self._send_batch():
                return
            gevent.sleep((time.thread_time() - started_at) * (1 / _MAX_SHARE - 1))

    def _send_batch(self) -> bool:
        """Claim, send and settle a few digests; False when none may be sent now."""
        now = clock.now()
        with write_transaction() as session:
            limit = min(_BATCH_SIZE, email_pace.count_allowed(session, self._max_per_minute, now=now))
            claimed = digests.claim(session, now=now, until=now + _LEASE, limit=limit)
            email_pace.record_sent(session, len(claimed), self._max_per_minute, now=now)
        if not claimed:
            return False
        prepared = []
        for digest in claimed:
            prepared.append(self._prepare(digest, now))
            gevent.sleep(0)
        db.session.rollback()  # no transaction stays open while the server takes its time
        contents = [content for _, _, content in prepared if isinstance(content, Digest)]
        outcomes = dict(zip([c.claimed.user_id for c in contents], self._pool.map(self._send, contents), strict=True))
        now = clock.now()
        with write_transaction() as session:
            for item in prepared:
                self._settle(session, item, outcomes.get(item.claimed.user_id), now)
            down = [outcome.reason for outcome in outcomes.values() if is_server_down(outcome)]
            if down:
                deliveries.set_problem(session, self.channel.name, down[0], at=now)
        return not down

    def _prepare(self, claimed: ClaimedDigest, now: datetime) -> _Prepared:
        user, preferences = users.get(claimed.user_id), users.get_preferences(claimed.user_id)
        next_at = preferences.get_next_digest(now)
        address = email_addresses.load_working([claimed.user_id]).get(claimed.user_id)
        if next_at is None or address is None or user is None or user.disabled_at:
            return _Prepared(claimed, next_at, None)
        if quiet_end := preferences.get_quiet_end(now):
            return _Prepared(claimed, next_at, quiet_end)
        items = digests.list_untold(user.as_viewer, now=now, limit=10 * MAX_MESSAGES)
        cards = [item.card for item in items if _is_wanted(preferences, item.card)]
        shown = cards[:MAX_MESSAGES]
        digest = Digest(claimed, user.name, address, shown, len(cards) - len(shown)) if cards else None
        return _Prepared(claimed, next_at, digest)

    def _send(self, digest: Digest) -> Outcome:
        try:
            with gevent.Timeout(TIMEOUT_SECONDS, False):
                claimed = digest.claimed
                return self.channel.send_digest(
                    claimed.message_id, claimed.user_id, digest.name, digest.address, digest.cards, more=digest.more
                )
        except Exception:  # the others of its batch are sent, and settled
            _log.exception("digest.failed", user=digest.claimed.user_id)
            return Refused("An unexpected error. The log has it under digest.failed.")
        return Retry(f"The server did not finish within {TIMEOUT_SECONDS:.0f} seconds.")

    def _settle(self, session: Session, prepared: _Prepared, outcome: Outcome | None, now: datetime) -> None:
        """Record an outcome, None if nothing was sent, and move on."""
        claimed, next_at, content = prepared
        retry_at = None
        if isinstance(content, datetime):
            retry_at = content
        elif isinstance(outcome, Retry) and now - claimed.period_at < _MAX_AGE:
            retry_at = now + _RETRY_AFTER
        is_current = digests.move_on(session, claimed, next_at, retry_at=retry_at)
        if not isinstance(content, Digest):
            return
        revisions = {card.id: card.revision for card in content.cards}
        if isinstance(outcome, Accepted):
            digests.record(session, claimed, revisions, "SENT", at=now)
        elif is_current and retry_at is None:
            digests.record(session, claimed, revisions, "FAILED", at=now, reason=outcome.reason)
        if isinstance(outcome, Gone):
            self.channel.disable_address(session, claimed.user_id, content.address, outcome.reason, at=now)


def _is_wanted(preferences: Preferences, card: Card) -> bool:
    mandatory = SETTINGS.current.mandatory_categories
    return preferences.may_email(priority=card.priority, category=card.category, mandatory=mandatory)
