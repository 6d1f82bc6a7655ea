"""The ladder: who has not done for some time what a broadcast awaits is reached by a channel, too, or a role is told.

Steps are made when a broadcast is sent, and planned when they are due, by any worker. What follows is the outbox's.
"""

from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial

import gevent
import structlog

from broadcast.actions import deputies
from broadcast.base.errors import BroadcastError
from broadcast.channels.protocol import Channel
from broadcast.channels.registry import CHANNELS
from broadcast.config.settings import SETTINGS
from broadcast.domain.message import Draft
from broadcast.domain.preferences import Preferences
from broadcast.store import escalation
from broadcast.store.escalation import DueStep
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction

_log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 0.005  # between transactions: other writers go first


def run_once(*, now: datetime, get_online_ids: Callable[[], Collection[int]] = tuple) -> None:
    """Make the steps of new broadcasts, and take those that are due. Raises TemporarilyUnavailable."""
    has_more = escalation.has_new_events()
    while has_more:
        with write_transaction() as session:
            has_more = escalation.add_steps(session)
    while steps := escalation.list_due_steps(now=now):
        is_progressing = False
        for step in steps:
            online_ids = get_online_ids() if step.skips_online else ()
            try:
                is_progressing |= _take_step(step, online_ids, now)
            except BroadcastError:
                raise
            except Exception:  # the other steps are taken, and this one is tried again in a second
                _log.exception("escalation.step_failed", step=step.id, broadcast=step.broadcast_id)
        if not is_progressing:
            return  # another worker is at them, or they fail


def _take_step(step: DueStep, online_ids: Collection[int], now: datetime) -> bool:
    """Take one step to its end; False when another worker does, or has."""
    if step.role is not None:
        return deputies.tell_deputies(step, now=now)
    channel = CHANNELS.current.get(step.channel)
    if channel is None:  # not set up here, or no longer
        with write_transaction() as session:
            return escalation.skip_step(session, step.id, now=now)
    return _plan_deliveries(channel, step.id, online_ids, now)


def _plan_deliveries(channel: Channel, step_id: int, online_ids: Collection[int], now: datetime) -> bool:
    has_address, wants, planned = channel.has_address(), partial(is_wanted, channel), False
    while True:
        with write_transaction() as session:
            state = escalation.plan_batch(session, step_id, has_address, wants=wants, now=now, online_ids=online_ids)
        if state is escalation.BatchState.TAKEN:
            return planned
        planned = True
        if state is escalation.BatchState.LAST:
            return True
        gevent.sleep(_PAUSE_SECONDS)


def is_wanted(channel: Channel, message: Broadcast | Draft, preferences: Preferences) -> bool:
    """Whether a user's preferences allow this message by this channel."""
    mandatory = SETTINGS.current.mandatory_categories
    return channel.is_wanted(preferences, priority=message.priority, category=message.category, mandatory=mandatory)
