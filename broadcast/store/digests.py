"""Digests: who gets the next one when, claiming those that are due, and what is in them."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Table, and_, bindparam, delete, insert, or_, select, tuple_, update
from sqlalchemy.orm import Session

from broadcast.domain.audience import Viewer
from broadcast.domain.lifecycle import Status
from broadcast.domain.preferences import Preferences
from broadcast.store.database import build_insert, db
from broadcast.store.inbox import Inbox, InboxFilters, InboxItem
from broadcast.store.models import Broadcast, Delivery, Digest

CHANNEL = "digest"  # of deliveries: the record of which message was in a digest
MAIL_CHANNELS = ("email", CHANNEL)
_TABLE: Table = Digest.__table__


class ClaimedDigest(NamedTuple):
    """A digest that this worker alone may send until the end of its lease."""

    user_id: int
    period_at: datetime
    attempts: int

    @property
    def message_id(self) -> str:
        """The same at every attempt to send the digest of this period."""
        return f"digest.{self.user_id}.{int(self.period_at.timestamp())}"


def schedule(session: Session, user_id: int, preferences: Preferences, *, now: datetime) -> None:
    """Schedule the user's next digest as they want it, in the transaction that stores their preferences."""
    next_at = preferences.get_next_digest(now)
    session.execute(delete(_TABLE).where(_TABLE.c.user_id == user_id, _TABLE.c.period_at != next_at))
    if next_at is not None:
        values = {"user_id": user_id, "period_at": next_at, "due_at": next_at}
        session.execute(build_insert(session, _TABLE).values(values).on_conflict_do_nothing())


def has_due(*, now: datetime) -> bool:
    return db.session.scalar(select(select(_TABLE.c.user_id).where(_TABLE.c.due_at <= now).exists()))


def claim(session: Session, *, now: datetime, until: datetime, limit: int) -> list[ClaimedDigest]:
    """Claim due digests until `until`: a worker that dies leaves them to the others from then on."""
    due_ids = select(_TABLE.c.user_id).where(_TABLE.c.due_at <= now).order_by(_TABLE.c.due_at).limit(limit)
    is_due = _TABLE.c.user_id.in_(due_ids.with_for_update(skip_locked=True))
    statement = update(_TABLE).where(is_due).values(attempts=_TABLE.c.attempts + 1, due_at=until)
    return [ClaimedDigest(*row) for row in session.execute(statement.returning(*_CLAIMED_COLUMNS))]


_CLAIMED_COLUMNS = [_TABLE.c[name] for name in ClaimedDigest._fields]
_IS_CLAIMED = (
    _TABLE.c.user_id == bindparam("claimed_user_id"),
    _TABLE.c.period_at == bindparam("claimed_period_at"),
    _TABLE.c.attempts == bindparam("claimed_attempts"),
)


def move_on(
    session: Session, claimed: ClaimedDigest, next_at: datetime | None, *, retry_at: datetime | None = None
) -> bool:
    """Try again at `retry_at`, else go on with the digest of `next_at`; None: there is none.

    False if the lease ended and another worker has claimed it since, or the user has other preferences by now.
    """
    identity = dict(zip(("claimed_user_id", "claimed_period_at", "claimed_attempts"), claimed, strict=True))
    if retry_at is not None:
        statement = update(_TABLE).values(due_at=retry_at)
    elif next_at is not None:
        statement = update(_TABLE).values(period_at=next_at, due_at=next_at, attempts=0)
    else:
        statement = delete(_TABLE)
    return session.connection().execute(statement.where(*_IS_CLAIMED), identity).rowcount == 1


def list_untold(viewer: Viewer, *, now: datetime, limit: int) -> list[InboxItem]:
    """The newest unread messages of a user of which no mail has told them since they were shown last."""
    told_query = (
        select(Delivery.broadcast_id)
        .join(Broadcast, Broadcast.id == Delivery.broadcast_id)
        .where(Delivery.user_id == viewer.user_id, Delivery.channel.in_(MAIL_CHANNELS), Delivery.state == "SENT")
        .where(Broadcast.status == Status.ACTIVE)
        .where(or_(Broadcast.renewed_at.is_(None), Delivery.created_at >= Broadcast.renewed_at))
    )
    told_ids = set(db.session.scalars(told_query))
    return Inbox(viewer, now).list_page(InboxFilters("unread"), limit=limit, excluded_ids=told_ids)


def record(
    session: Session,
    claimed: ClaimedDigest,
    revisions: Mapping[int, int],
    state: str,
    *,
    at: datetime,
    reason: str | None = None,
) -> None:
    """Record what became of a digest for each of its messages: `revisions` has their revision by broadcast id."""
    is_same = tuple_(Delivery.broadcast_id, Delivery.revision).in_(list(revisions.items()))
    is_earlier = and_(Delivery.user_id == claimed.user_id, Delivery.channel == CHANNEL, is_same)
    session.execute(delete(Delivery.__table__).where(is_earlier))  # of a digest that failed, for instance
    values = {
        "user_id": claimed.user_id,
        "channel": CHANNEL,
        "message_id": claimed.message_id,
        "state": state,
        "due_at": at,
        "attempts": claimed.attempts,
        "created_at": at,
        "ended_at": at,
        "reason": reason,
    }
    rows = [values | {"broadcast_id": broadcast_id, "revision": number} for broadcast_id, number in revisions.items()]
    session.execute(insert(Delivery.__table__), rows)
