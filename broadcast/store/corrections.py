"""Corrections after a recall: who got a mail or a push message about the broadcast is told by the same channel.

The deliveries are the record of who that is. A correction is a delivery, too, in a queue of its own.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, exists, select, tuple_, update
from sqlalchemy.orm import Session

from broadcast.domain.preferences import parse_stored_preferences
from broadcast.store import digests
from broadcast.store.database import ROW_LOCK, build_insert, db, execute_in_chunks
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.escalation import Recipient
from broadcast.store.models import Broadcast, Delivery, RecallCorrection, User

QUEUES = {"email": "correction", digests.CHANNEL: "correction", "push": "push correction"}  # by what is corrected
DELIVERIES_PER_BATCH = 250
Position = tuple[int, int, str]  # revision, user id and channel of the last delivery of a batch
START: Position = (0, 0, "")


def begin(session: Session, broadcast_ids: Collection[int], *, at: datetime) -> None:
    """Note, in the transaction of a recall, that corrections may be needed."""
    was_sent = exists().where(
        Delivery.broadcast_id == Broadcast.id, Delivery.state.in_(("SENT", "WAITING")), _can_be_corrected()
    )
    sent = execute_in_chunks(session, select(Broadcast.id).where(was_sent), Broadcast.id, broadcast_ids)
    if rows := [{"broadcast_id": broadcast_id, "recalled_at": at} for (broadcast_id,) in sent]:
        session.execute(build_insert(session, RecallCorrection.__table__).on_conflict_do_nothing(), rows)


def list_unfinished() -> list[int]:
    """The ids of recalled broadcasts, the oldest recall first, whose corrections are not all planned."""
    query = select(RecallCorrection.broadcast_id).where(RecallCorrection.finished_at.is_(None))
    return list(db.session.scalars(query.order_by(RecallCorrection.recalled_at).limit(100)))


def may_plan(session: Session, broadcast_id: int, *, lease: timedelta, now: datetime) -> bool:
    """Whether there is something to plan: at first, and when none is on its way any more.

    What is held back for longer than a lease is not on its way: it is due at once, and so cancelled.
    """
    row = session.get(RecallCorrection, broadcast_id, with_for_update=ROW_LOCK | {"skip_locked": True})
    if row is None or row.finished_at is not None:
        return False  # another worker plans it, or has
    if row.planned_at is None:
        is_held = and_(_is_waiting(broadcast_id), Delivery.due_at > now + lease)
        session.execute(update(Delivery.__table__).where(is_held).values(due_at=now))
        return True
    return not session.scalar(select(select(Delivery.id).where(_is_waiting(broadcast_id)).exists()))


def plan_batch(session: Session, broadcast_id: int, position: Position, *, now: datetime) -> Position | None:
    """Put the next corrections into the outbox; return the position of the last one, None when there are no more.

    Who has one already gets no other, so that it may begin anew after a crash.
    """
    row = session.get(RecallCorrection, broadcast_id, with_for_update=ROW_LOCK)
    broadcast = session.get(Broadcast, broadcast_id)
    is_waiting = session.scalar(select(select(Delivery.id).where(_is_waiting(broadcast_id)).exists()))
    key = (Delivery.revision, Delivery.user_id, Delivery.channel)
    query = (
        select(*key, Delivery.message_id)
        .where(
            Delivery.broadcast_id == broadcast_id,
            tuple_(*key) > position,
            Delivery.state == "SENT",
            _can_be_corrected(),
        )
        .order_by(*key)
        .limit(DELIVERIES_PER_BATCH)
    )
    sent = session.execute(query, execution_options=RUN_IN_THREAD).all()
    rows = [
        {
            "broadcast_id": broadcast_id,
            "revision": broadcast.revision,
            "user_id": user_id,
            "channel": QUEUES[channel],
            "message_id": f"{message_id}.r{broadcast_id}",
            "state": "WAITING",
            "due_at": now,
            "attempts": 0,
            "created_at": now,
        }
        for _, user_id, channel, message_id in sent
    ]
    if rows:
        session.execute(build_insert(session, Delivery.__table__).on_conflict_do_nothing(), rows)
    if len(sent) == DELIVERIES_PER_BATCH:
        return tuple(sent[-1][:3])
    row.planned_at = row.planned_at or now
    row.finished_at = None if is_waiting else now
    return None


def find_recipients(user_ids: Collection[int]) -> dict[int, Recipient]:
    """Those of these users whose account is enabled, by id."""
    query = select(User.id, User.name, User.preferences).where(User.id.in_(user_ids), User.disabled_at.is_(None))
    return {id: Recipient(id, name, parse_stored_preferences(raw or {})) for id, name, raw in db.session.execute(query)}


def _can_be_corrected() -> ColumnElement[bool]:
    return Delivery.channel.in_(QUEUES)


def _is_waiting(broadcast_id: int) -> ColumnElement[bool]:
    return and_(Delivery.broadcast_id == broadcast_id, Delivery.state == "WAITING", _can_be_corrected())
