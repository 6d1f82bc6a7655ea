"""Steps of escalation: made from the log, and planned into the outbox batch by batch.

Each channel has read the log up to `planned_seq`. In one transaction a step is made for every broadcast that was sent or
shown again since, and the number is raised, so that each has its step exactly once, whatever is killed.
"""

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from broadcast.domain.events import EventType
from broadcast.domain.lifecycle import Status
from broadcast.domain.preferences import Preferences, parse_stored_preferences
from broadcast.store import audiences, receipt_steps, webhooks
from broadcast.store.database import ROW_LOCK, build_insert, db
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.models import (
    Broadcast,
    ChannelSettings,
    Delivery,
    EmailAddress,
    EscalationStep,
    LogEvent,
    LogHead,
    Receipt,
    User,
)

EVENTS_PER_BATCH = 5_000
USERS_PER_BATCH = 250
StepKey = tuple[int, datetime, str]
_DEFAULTS = Preferences()


class Recipient(NamedTuple):
    """A user who has not seen a broadcast and whom e-mail would reach."""

    user_id: int
    name: str
    address: str
    preferences: Preferences


def has_new_events(channel: str) -> bool:
    """Whether the log has events that this channel has not planned."""
    planned_seq = select(ChannelSettings.planned_seq).where(ChannelSettings.channel == channel).scalar_subquery()
    return bool(db.session.scalar(select(LogHead.seq != planned_seq)))


def add_steps(session: Session, channel: str) -> bool:
    """Make the steps of what was sent or shown again since the last call; at most EVENTS_PER_BATCH events are read.

    True when there are more.
    """
    settings = session.get(ChannelSettings, channel, with_for_update=ROW_LOCK | {"skip_locked": True})
    if settings is None:
        return False  # another worker is doing it
    head_seq = session.scalar(select(LogHead.seq))
    through = min(head_seq, settings.planned_seq + EVENTS_PER_BATCH)
    started_at = func.coalesce(Broadcast.renewed_at, Broadcast.published_at)
    query = (
        select(Broadcast.id, Broadcast.revision, Broadcast.priority, started_at)
        .join(LogEvent, LogEvent.broadcast_id == Broadcast.id)
        .where(LogEvent.seq > settings.planned_seq, LogEvent.seq <= through)
        .where(LogEvent.type.in_((EventType.MESSAGE, EventType.MESSAGE_UPDATED)))
        .where(Broadcast.status == Status.ACTIVE, Broadcast.priority.in_(sorted(settings.delays)))
        .distinct()
    )
    rows = [
        {
            "broadcast_id": broadcast_id,
            "started_at": start,
            "channel": channel,
            "revision": revision,
            "due_at": start + timedelta(seconds=settings.delays[priority]),
        }
        for broadcast_id, revision, priority, start in session.execute(query)
    ]
    if rows:
        session.execute(build_insert(session, EscalationStep.__table__).on_conflict_do_nothing(), rows)
    settings.planned_seq = through
    return through < head_seq


def list_due_steps(channel: str, *, now: datetime) -> list[StepKey]:
    """Steps that are due and not planned to the end, the most overdue first."""
    query = select(EscalationStep.broadcast_id, EscalationStep.started_at, EscalationStep.channel)
    is_due = (EscalationStep.planned_at.is_(None), EscalationStep.due_at <= now, EscalationStep.channel == channel)
    return [tuple(row) for row in db.session.execute(query.where(*is_due).order_by(EscalationStep.due_at).limit(100))]


def plan_batch(
    session: Session, key: StepKey, *, wants: Callable[[Broadcast, Preferences], bool], now: datetime
) -> bool:
    """Put a step's next recipients into the outbox. False when the step is done, or another worker plans it."""
    lock = ROW_LOCK | {"skip_locked": True}
    step: EscalationStep | None = session.get(EscalationStep, key, with_for_update=lock)
    if step is None or step.planned_at is not None:
        return False
    broadcast, settings = session.get(Broadcast, step.broadcast_id), session.get(ChannelSettings, step.channel)
    recipients: list[Recipient] = []
    if is_escalating(broadcast, step.started_at, now=now) and broadcast.priority in settings.delays:
        query = _select_recipients(broadcast).where(EmailAddress.user_id > step.planned_user_id)
        recipients = _load_recipients(session, query.order_by(EmailAddress.user_id).limit(USERS_PER_BATCH))
    nonce = secrets.token_hex(6)  # no other system has such ids
    rows = [
        {
            "broadcast_id": step.broadcast_id,
            "revision": step.revision,
            "user_id": recipient.user_id,
            "channel": step.channel,
            "message_id": f"{step.broadcast_id}.{step.revision}.{recipient.user_id}.{nonce}",
            "state": "WAITING",
            "due_at": now,
            "attempts": 0,
            "created_at": now,
        }
        for recipient in recipients
        if wants(broadcast, recipient.preferences)
    ]
    if rows:
        session.execute(build_insert(session, Delivery.__table__).on_conflict_do_nothing(), rows)
    if len(recipients) < USERS_PER_BATCH:
        step.planned_at = now
        webhooks.record_escalation(session, step, at=now)
        return False
    step.planned_user_id = recipients[-1].user_id
    return True


def is_escalating(broadcast: Broadcast, since: datetime, *, now: datetime) -> bool:
    """Whether a broadcast is live, and was not shown again after `since`, which began another escalation."""
    is_over = broadcast.expires_at is not None and broadcast.expires_at <= now
    return broadcast.is_live and not is_over and (broadcast.renewed_at is None or since >= broadcast.renewed_at)


def get_broadcast(broadcast_id: int) -> Broadcast | None:
    """The broadcast as it is now."""
    return db.session.get(Broadcast, broadcast_id, populate_existing=True)


def find_recipients(broadcast: Broadcast, user_ids: Sequence[int]) -> dict[int, Recipient]:
    """Those of these users who are still in the audience, have not seen it, and can be reached, by id."""
    query = _select_recipients(broadcast).where(EmailAddress.user_id.in_(user_ids))
    return {recipient.user_id: recipient for recipient in _load_recipients(db.session(), query)}


def _select_recipients(broadcast: Broadcast) -> Select:
    return (
        select(User.id, User.name, EmailAddress.address, User.preferences)
        .select_from(EmailAddress)
        .join(User, User.id == EmailAddress.user_id)
        .outerjoin(Receipt, and_(Receipt.user_id == User.id, Receipt.broadcast_id == broadcast.id))
        .where(
            User.disabled_at.is_(None),
            EmailAddress.verified_at.is_not(None),
            EmailAddress.failing_since.is_(None),
            audiences.is_member_of(broadcast),
            ~_has_noticed(broadcast),
        )
    )


def _has_noticed(broadcast: Broadcast) -> ColumnElement[bool]:
    """Whether a user has seen it. Of one that was shown again only the first view is known, so that they have read or
    dismissed it since.
    """
    if broadcast.renewed_at is None:
        return receipt_steps.seen_at_column(broadcast).is_not(None)
    was_dismissed = func.coalesce(Receipt.dismissed_at >= broadcast.renewed_at, False)
    return or_(receipt_steps.read_at_column(broadcast).is_not(None), was_dismissed)


def _load_recipients(session: Session, query: Select) -> list[Recipient]:
    rows = session.execute(query, execution_options=RUN_IN_THREAD)
    return [Recipient(*row, parse_stored_preferences(raw) if raw else _DEFAULTS) for *row, raw in rows]
