"""Escalation: who has not seen a broadcast for some time is reached by a channel, too.

A step is made when a broadcast is sent, and planned when it is due, by any worker. What follows is the outbox's.
"""

from datetime import datetime

import gevent

from broadcast.config.settings import SETTINGS
from broadcast.domain.preferences import Preferences
from broadcast.store import escalation
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction

_PAUSE_SECONDS = 0.005  # between transactions: other writers go first


def run_once(channel: str, *, now: datetime) -> None:
    """Make the steps of new broadcasts, and plan those that are due. Raises TemporarilyUnavailable."""
    has_more = escalation.has_new_events(channel)
    while has_more:
        with write_transaction() as session:
            has_more = escalation.add_steps(session, channel)
    for key in escalation.list_due_steps(channel, now=now):
        is_unfinished = True
        while is_unfinished:
            with write_transaction() as session:
                is_unfinished = escalation.plan_batch(session, key, wants=wants_email, now=now)
            gevent.sleep(_PAUSE_SECONDS)


def wants_email(broadcast: Broadcast, preferences: Preferences) -> bool:
    """Whether a user's preferences allow an e-mail about this broadcast."""
    return preferences.wants_email(
        priority=broadcast.priority, category=broadcast.category, mandatory=SETTINGS.current.mandatory_categories
    )
