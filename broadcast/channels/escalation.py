"""Escalation: who has not seen a broadcast for some time is reached by a channel, too.

A step is made when a broadcast is sent, and planned when it is due, by any worker. What follows is the outbox's.
"""

from datetime import datetime
from functools import partial

import gevent

from broadcast.channels.protocol import Channel
from broadcast.channels.registry import CHANNELS
from broadcast.config.settings import SETTINGS
from broadcast.domain.preferences import Preferences
from broadcast.store import escalation
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction

_PAUSE_SECONDS = 0.005  # between transactions: other writers go first


def run_once(*, now: datetime) -> None:
    """Make the steps of new broadcasts, and plan those that are due, for every channel. Raises TemporarilyUnavailable."""
    for channel in CHANNELS.current.values():
        has_more = escalation.has_new_events(channel.name)
        while has_more:
            with write_transaction() as session:
                has_more = escalation.add_steps(session, channel.name)
        for key in escalation.list_due_steps(channel.name, now=now):
            _plan_step(channel, key, now)


def _plan_step(channel: Channel, key: escalation.StepKey, now: datetime) -> None:
    has_address, wants, is_unfinished = channel.has_address(), partial(is_wanted, channel), True
    while is_unfinished:
        with write_transaction() as session:
            is_unfinished = escalation.plan_batch(session, key, has_address, wants=wants, now=now)
        gevent.sleep(_PAUSE_SECONDS)


def is_wanted(channel: Channel, broadcast: Broadcast, preferences: Preferences) -> bool:
    """Whether a user's preferences allow this broadcast by this channel."""
    mandatory = SETTINGS.current.mandatory_categories
    return channel.is_wanted(preferences, priority=broadcast.priority, category=broadcast.category, mandatory=mandatory)
