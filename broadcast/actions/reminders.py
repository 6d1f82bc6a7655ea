"""Remind users who have not read or not acknowledged a broadcast: an event for exactly them, at most once an hour.

A second broadcast would be a second card with its own statistics. The event is MESSAGE_UPDATED with `reminder`, to
selected users: those who have read it get nothing, and those who are away get it in the replay. Who has no page open is
reached by the channels of its ladder, too.
"""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from broadcast.actions import notify
from broadcast.actions.broadcast_rows import get_broadcast_for_update
from broadcast.base.cooperative import split_into_chunks
from broadcast.base.errors import Conflict
from broadcast.domain.actor import Actor
from broadcast.domain.audience import make_user_audience
from broadcast.domain.escalation import Awaited, read_plan
from broadcast.domain.events import EventType
from broadcast.domain.permissions import Permission
from broadcast.store import audit, broadcast_stats, broadcasts, escalation, log
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction

REMINDER_INTERVAL = timedelta(hours=1)
MAX_RECIPIENTS = 50_000  # users reminded at once, as many as can be selected by name; worst first
_NOBODY_ID = -1  # no user has it
_MAX_IDS_PER_EVENT = 5_000  # ids: decoding one event stays below a millisecond


def remind(broadcast_id: int, *, by: Actor, now: datetime, may_count_missing: bool = True) -> int | None:
    """Alert the recipients who are still missing; return how many there are.

    Without `may_count_missing` the result must not reveal whether anybody is missing: the reminder is sent without a
    count, and None is returned. Raises NotFound, Conflict (not live, nobody is missing, reminded within the hour).
    """
    by.require(Permission.WRITE)
    broadcast = broadcasts.get(broadcast_id)
    missing = broadcast_stats.list_missing(broadcast, limit=MAX_RECIPIENTS) if broadcast and broadcast.is_live else []
    missing_ids = [recipient.user_id for recipient in missing]
    with write_transaction() as session:
        broadcast = get_broadcast_for_update(session, broadcast_id)
        _check_may_remind(broadcast, now)
        if may_count_missing and not missing_ids:
            raise Conflict("There is nobody to remind: everyone has already responded.")
        broadcast.reminded_at = now
        _add_steps(session, broadcast, now)
        payload = broadcast.to_card().to_payload() | {"seq": broadcast.seq, "reminder": True}
        user_ids = missing_ids or [_NOBODY_ID]  # every worker must know of it (`store.live_broadcasts`)
        detail = {"people": len(missing_ids)} if may_count_missing else {}
        audit.record(session, by, "broadcast.reminded", "broadcast", broadcast.id, now=now, **detail)
        session.flush()
        entries = [
            log.NewEvent(EventType.MESSAGE_UPDATED, broadcast.id, make_user_audience(chunk), payload)
            for chunk in split_into_chunks(user_ids, _MAX_IDS_PER_EVENT)
        ]
        log.append(session, entries, at=now)
    notify.notify_workers()
    return len(missing_ids) if may_count_missing else None


def _add_steps(session: Session, broadcast: Broadcast, now: datetime) -> None:
    """Who has no page open is reached at once by the channels of the broadcast's ladder."""
    policy = read_plan(broadcast.escalation_plan)
    channels = dict.fromkeys(step.channel for step in policy.steps if step.channel) if policy else ()
    awaits = Awaited.ACKNOWLEDGED if broadcast.requires_ack else Awaited.READ
    escalation.add_reminder(session, broadcast, channels, awaits, now)


def get_next_reminder_at(broadcast: Broadcast) -> datetime | None:
    """The earliest time of the next reminder; None when there was none yet."""
    return broadcast.reminded_at and broadcast.reminded_at + REMINDER_INTERVAL


def _check_may_remind(broadcast: Broadcast, now: datetime) -> None:
    if not broadcast.is_live:
        raise Conflict("You can send reminders only for a live broadcast.")
    if (earliest := get_next_reminder_at(broadcast)) and now < earliest:
        minutes = -(-(earliest - now) // timedelta(minutes=1))
        raise Conflict(f"A reminder was sent within the last hour. You can send the next one in {minutes} min.")
