"""A step of a ladder that tells a role how many people have not done what a broadcast awaits: a broadcast to that role,
published in the transaction that ends the step, so exactly once.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from broadcast.actions import broadcast_rows, notify
from broadcast.actions.broadcast_rows import PreparedMessage, prepare_message
from broadcast.actions.broadcasts import publish_rows
from broadcast.base.errors import Invalid
from broadcast.config.settings import SETTINGS
from broadcast.domain.actor import SYSTEM
from broadcast.domain.escalation import Awaited
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import MAX_TITLE_CHARACTERS, NO_ESCALATION, Draft, Link, Priority, Target, TargetType
from broadcast.store import audit, escalation
from broadcast.store.escalation import DueStep
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction

_VERBS = {Awaited.SEEN: "seen", Awaited.READ: "read", Awaited.ACKNOWLEDGED: "acknowledged"}


def tell_deputies(step: DueStep, *, now: datetime) -> bool:
    """Take a step that names a role. Nothing is published when the broadcast is over, nobody is missing, or nobody has
    the role. False when another worker took the step. Lets other greenlets run.
    """
    broadcast, message, count = escalation.get_broadcast(step.broadcast_id), None, 0
    if broadcast is not None and escalation.is_escalating(broadcast, step.started_at, now=now):
        count = escalation.count_unreached(broadcast, Awaited(step.awaits))
        message = _prepare(broadcast, step, count) if count else None
    with write_transaction() as session:
        row = escalation.lock_step(session, step.id)
        if row is None:
            return False
        row.planned_at, row.people = now, count
        original = session.get(Broadcast, step.broadcast_id, populate_existing=True)
        if message and escalation.is_escalating(original, step.started_at, now=now):
            _publish(session, original, message, now)
    notify.notify_workers()
    return True


def _prepare(broadcast: Broadcast, step: DueStep, count: int) -> PreparedMessage | None:
    """The notice; None when nobody has the role, or it is gone."""
    verb = _VERBS[_get_awaited(broadcast, step)]
    people, by = (f"{count:,} people have" if count > 1 else "1 person has"), f" by {count:,}"
    if not SETTINGS.current.stats_per_recipient:
        people, by = "Some people have", " by everyone"
    url = f"{SETTINGS.current.link_base}/console/broadcasts/{broadcast.id}"
    draft = Draft(
        title=f"Not {verb}{by}: {broadcast.title}"[:MAX_TITLE_CHARACTERS],
        content=f"{people} not {verb} this message. You get this because you have the role {step.role}.",
        target=Target(TargetType.ROLE, (step.role,)),
        priority=Priority(broadcast.priority),
        category=broadcast.category,
        expires_at=broadcast.expires_at,
        actions=(Link("Open in the console", url),),
        escalation=NO_ESCALATION,
    )
    try:
        message = prepare_message(draft)
    except Invalid:
        return None
    return message if message.recipient_count else None


def _get_awaited(broadcast: Broadcast, step: DueStep) -> Awaited:
    awaited = Awaited(step.awaits)
    is_read = awaited is Awaited.ACKNOWLEDGED and not broadcast.requires_ack
    return Awaited.READ if is_read else awaited


def _publish(session: Session, original: Broadcast, message: PreparedMessage, now: datetime) -> None:
    """In the name of this system; it belongs to who sent the original."""
    row = Broadcast(**broadcast_rows.build_draft_columns(SYSTEM, now))
    row.sender_id, row.sender_name = original.sender_id, SETTINGS.current.app_name
    broadcast_rows.write_message(session, row, message, now, may_be_empty=False)
    row.status = Status.ACTIVE.value
    detail = {"title": row.title, "escalation_of": original.id}
    audit.record(session, SYSTEM, "broadcast.published", "broadcast", row.id, now=now, **detail)
    publish_rows(session, [(row, message.audience)], now)
