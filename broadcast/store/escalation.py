"""The ladder of a broadcast: its steps, made from the log, and planned into the outbox batch by batch.

The log has been read up to `EscalationProgress.planned_seq`. In one transaction the steps of every broadcast that was
sent or shown again since are made, and the number is raised, so that each has them exactly once, whatever is killed.
"""

import json
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Text, and_, cast, false, func, insert, literal, or_, select, text
from sqlalchemy.orm import Session

from broadcast.base.cooperative import yield_to_loop
from broadcast.domain.escalation import Awaited, PolicyStep, read_plan
from broadcast.domain.events import EventType
from broadcast.domain.lifecycle import Status
from broadcast.domain.preferences import Preferences, parse_stored_preferences
from broadcast.store import audiences, receipt_steps, webhooks
from broadcast.store.database import ROW_LOCK, build_insert, db
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.models import (
    Broadcast,
    Delivery,
    EscalationProgress,
    EscalationStep,
    LogEvent,
    LogHead,
    Receipt,
    User,
)
from broadcast.store.types import UtcDateTime

EVENTS_PER_BATCH = 5_000
USERS_PER_BATCH = 1_000  # in one transaction, which others wait for
_USERS_PER_TURN = 100  # read between two turns of the loop: SQLite looks for them meanwhile
_CACHED_PREFERENCES = 4_096  # users share theirs: most differ in the time zone alone
_SKIP_LOCKED = ROW_LOCK | {"skip_locked": True}
_DEFAULTS = Preferences()
PREFERENCES_TEXT = cast(User.preferences, Text)  # compared and parsed once for all who have the same
USER_NAME = User.name
_REMINDER_POSITION = 100  # of the first step of a reminder


class BatchState(Enum):
    """What became of a batch of a step. TAKEN: the step is done already, or another worker plans it."""

    MORE = "MORE"
    LAST = "LAST"
    TAKEN = "TAKEN"


class DueStep(NamedTuple):
    """A step that is due and not planned to the end; either `channel` or `role` is set."""

    id: int
    broadcast_id: int
    started_at: datetime
    channel: str | None
    role: str | None
    awaits: str
    skips_online: bool


class Recipient(NamedTuple):
    """A user who has not done what a step awaits."""

    user_id: int
    name: str
    preferences: Preferences


def has_new_events() -> bool:
    """Whether the log has events that were not read for their steps."""
    planned_seq = select(EscalationProgress.planned_seq).scalar_subquery()
    return bool(db.session.scalar(select(LogHead.seq != planned_seq)))


def add_steps(session: Session) -> bool:
    """Make the steps of what was sent or shown again since the last call; at most EVENTS_PER_BATCH events are read.

    True when there are more.
    """
    progress = session.get(EscalationProgress, 1, with_for_update=_SKIP_LOCKED)
    if progress is None:
        return False  # another worker is doing it
    head_seq = session.scalar(select(LogHead.seq))
    through = min(head_seq, progress.planned_seq + EVENTS_PER_BATCH)
    started_at = func.coalesce(Broadcast.renewed_at, Broadcast.published_at)
    ids = select(LogEvent.broadcast_id).where(
        LogEvent.seq > progress.planned_seq,
        LogEvent.seq <= through,
        LogEvent.type.in_((EventType.MESSAGE, EventType.MESSAGE_UPDATED)),
    )
    query = select(Broadcast.id, Broadcast.revision, started_at, Broadcast.escalation_plan).where(
        Broadcast.id.in_(ids), Broadcast.status == Status.ACTIVE, Broadcast.escalation_plan.is_not(None)
    )
    rows = [
        _build_step(broadcast_id, revision, start, position, step)
        for broadcast_id, revision, start, plan in session.execute(query)
        for position, step in enumerate(read_plan(plan).steps)
    ]
    if rows:
        session.execute(build_insert(session, EscalationStep.__table__).on_conflict_do_nothing(), rows)
    progress.planned_seq = through
    return through < head_seq


def add_reminder(
    session: Session, broadcast: Broadcast, channels: Collection[str], awaits: Awaited, now: datetime
) -> None:
    """Add a step for each channel that is due at once, for who has no page open."""
    for position, channel in enumerate(channels, _REMINDER_POSITION):
        step = PolicyStep(0, awaits, channel)
        row = _build_step(broadcast.id, broadcast.revision, now, position, step)
        session.add(EscalationStep(**row, skips_online=True))


def _build_step(broadcast_id: int, revision: int, start: datetime, position: int, step: PolicyStep) -> dict[str, Any]:
    return {
        "broadcast_id": broadcast_id,
        "started_at": start,
        "position": position,
        "channel": step.channel,
        "role": step.role,
        "awaits": step.awaits.value,
        "revision": revision,
        "due_at": start + timedelta(minutes=step.minutes),
    }


def list_due_steps(*, now: datetime) -> list[DueStep]:
    """The most overdue first, at most 100."""
    query = select(*(getattr(EscalationStep, name) for name in DueStep._fields))
    is_due = (EscalationStep.planned_at.is_(None), EscalationStep.due_at <= now)
    order = (EscalationStep.due_at, EscalationStep.id)
    return [DueStep(*row) for row in db.session.execute(query.where(*is_due).order_by(*order).limit(100))]


def lock_step(session: Session, step_id: int) -> EscalationStep | None:
    """A step that is still to be planned; None when it was, or another worker plans it."""
    step: EscalationStep | None = session.get(EscalationStep, step_id, with_for_update=_SKIP_LOCKED)
    return step if step is not None and step.planned_at is None else None


def skip_step(session: Session, step_id: int, *, now: datetime) -> bool:
    """End a step that reaches nobody. False when another worker plans it."""
    step = lock_step(session, step_id)
    if step is not None:
        step.planned_at = now
    return step is not None


def plan_batch(
    session: Session,
    step_id: int,
    has_address: ColumnElement[bool],
    *,
    wants: Callable[[Broadcast, Preferences], bool],
    now: datetime,
    online_ids: Collection[int] = (),
) -> BatchState:
    """Put a step's next recipients into the outbox.

    `has_address` is the condition that the channel has an address of a User. Nobody of `online_ids` gets it. Lets other
    greenlets run.
    """
    step = lock_step(session, step_id)
    if step is None:
        return BatchState.TAKEN
    broadcast = session.get(Broadcast, step.broadcast_id)
    last_id, count, wanted_ids, is_wanted = 0, 0, [], {}
    if is_escalating(broadcast, step.started_at, now=now):
        query = _select_unreached(broadcast, Awaited(step.awaits), User.id, PREFERENCES_TEXT)
        query = query.where(has_address, User.id > step.planned_user_id).order_by(User.id).limit(USERS_PER_BATCH)
        if broadcast.audience_kind != "users":
            _read_in_order_of_ids(session)
        for user_id, preferences in _read_in_turns(session, query):
            count, last_id = count + 1, user_id
            if preferences not in is_wanted:  # decided once for all who have the same
                is_wanted[preferences] = wants(broadcast, parse_preferences_text(preferences))
            if is_wanted[preferences] and user_id not in online_ids:
                wanted_ids.append(user_id)
    _add_deliveries(session, step, wanted_ids, now)
    step.people += len(wanted_ids)
    if count < USERS_PER_BATCH:
        step.planned_at = now
        webhooks.record_escalation(session, step, at=now)
        return BatchState.LAST
    step.planned_user_id = last_id
    return BatchState.MORE


def _read_in_order_of_ids(session: Session) -> None:
    """Let PostgreSQL follow the index until the batch is full: it expects few to have an address and to have not seen it,
    and would find and sort all users that are left, for each batch. Until the end of the transaction.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SET LOCAL enable_sort = off"))


def _add_deliveries(session: Session, step: EscalationStep, user_ids: Sequence[int], now: datetime) -> None:
    """In one statement: as rows, PostgreSQL takes ten times as long."""
    if not user_ids:
        return
    user_id = audiences.select_ids(session, user_ids)
    nonce = secrets.token_hex(6)  # no other system has such ids
    prefix = f"{step.broadcast_id}.{step.revision}."
    values = {
        "broadcast_id": literal(step.broadcast_id),
        "revision": literal(step.revision),
        "user_id": user_id,
        "channel": literal(step.channel),
        "step_id": literal(step.id),
        "message_id": literal(prefix) + cast(user_id, Text) + literal(f".{nonce}"),
        "state": literal("WAITING"),
        "due_at": literal(now, UtcDateTime),
        "attempts": literal(0),
        "created_at": literal(now, UtcDateTime),
    }
    statement = insert(Delivery.__table__).from_select(list(values), select(*values.values()))
    session.execute(statement, execution_options=RUN_IN_THREAD)


def _read_in_turns(session: Session, query: Select) -> Iterator[Any]:
    for rows in session.execute(query, execution_options=RUN_IN_THREAD).partitions(_USERS_PER_TURN):
        yield from rows
        yield_to_loop()


@lru_cache(_CACHED_PREFERENCES)
def parse_preferences_text(raw_text: str | None) -> Preferences:
    """The preferences in a value of PREFERENCES_TEXT."""
    raw = raw_text and json.loads(raw_text)
    return parse_stored_preferences(raw) if raw else _DEFAULTS


def may_be_unreached(have_address: Collection[ColumnElement[bool]]) -> ColumnElement[bool]:
    """The condition that a User has an address by none of the channels, or preferences that may exclude one."""
    return or_(~or_(false(), *have_address), User.preferences.is_not(None))


def is_escalating(broadcast: Broadcast, since: datetime, *, now: datetime) -> bool:
    """Whether a broadcast is live, and was not shown again after `since`, which began another ladder."""
    is_over = broadcast.expires_at is not None and broadcast.expires_at <= now
    return broadcast.is_live and not is_over and (broadcast.renewed_at is None or since >= broadcast.renewed_at)


def get_broadcast(broadcast_id: int) -> Broadcast | None:
    """The broadcast as it is now."""
    return db.session.get(Broadcast, broadcast_id, populate_existing=True)


def get_awaited(step_ids: Collection[int]) -> dict[int, Awaited]:
    """What these steps await, by id."""
    query = select(EscalationStep.id, EscalationStep.awaits).where(EscalationStep.id.in_(step_ids))
    return {step_id: Awaited(awaits) for step_id, awaits in db.session.execute(query)}


def list_steps(broadcast_id: int) -> list[EscalationStep]:
    """Every step of a broadcast, of the newest ladder or reminder first."""
    query = select(EscalationStep).where(EscalationStep.broadcast_id == broadcast_id)
    order = (EscalationStep.started_at.desc(), EscalationStep.due_at, EscalationStep.position)
    return list(db.session.scalars(query.order_by(*order)))


def find_recipients(broadcast: Broadcast, awaits: Awaited, user_ids: Sequence[int]) -> dict[int, Recipient]:
    """Those of these users who are still in the audience and have not done what is awaited, by id."""
    query = _select_unreached(broadcast, awaits, User.id, User.name, User.preferences)
    rows = db.session.execute(query.where(User.id.in_(user_ids)))
    return {
        user_id: Recipient(user_id, name, parse_stored_preferences(raw) if raw else _DEFAULTS)
        for user_id, name, raw in rows
    }


def count_unreached(broadcast: Broadcast, awaits: Awaited) -> int:
    """How many in the audience have not done what is awaited."""
    query = _select_unreached(broadcast, awaits, func.count())
    return db.session.scalar(query, execution_options=RUN_IN_THREAD)


def _select_unreached(broadcast: Broadcast, awaits: Awaited, *columns: Any) -> Select:
    has_receipt = and_(Receipt.user_id == User.id, Receipt.broadcast_id == broadcast.id)
    return (
        select(*columns)
        .select_from(User)
        .outerjoin(Receipt, has_receipt)
        .where(User.disabled_at.is_(None), audiences.is_member_of(broadcast), ~_has_reached(broadcast, awaits))
    )


def _has_reached(broadcast: Broadcast, awaits: Awaited) -> ColumnElement[bool]:
    """Whether a user has done what is awaited. Of a broadcast that was shown again only the first view is known, so that
    to have seen it they have read or dismissed it since.
    """
    if awaits is Awaited.ACKNOWLEDGED and broadcast.requires_ack:
        return receipt_steps.acknowledged_at_column(broadcast).is_not(None)
    if awaits is not Awaited.SEEN:
        return receipt_steps.read_at_column(broadcast).is_not(None)
    if broadcast.renewed_at is None:
        return receipt_steps.seen_at_column(broadcast).is_not(None)
    was_dismissed = func.coalesce(Receipt.dismissed_at >= broadcast.renewed_at, False)
    return or_(receipt_steps.read_at_column(broadcast).is_not(None), was_dismissed)
