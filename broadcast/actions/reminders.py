"""Reminding those who have not read a broadcast, or not acknowledged it: an event for exactly them, at most once an hour.

No second broadcast: that would be a second card, counted apart. The event is MESSAGE_UPDATED with `reminder`, to chosen people,
so who has read it hears nothing, and who is away finds it in the replay.
"""

from datetime import datetime, timedelta

from broadcast.actions import audit, notify
from broadcast.base.errors import Conflict, NotFound
from broadcast.domain.actor import Actor
from broadcast.domain.audience import users
from broadcast.domain.events import EventType
from broadcast.domain.permissions import Permission
from broadcast.store import broadcast_stats, broadcasts, log
from broadcast.store.database import ROW_LOCK, writing
from broadcast.store.models import Broadcast

EVERY = timedelta(hours=1)
MOST = 50_000  # people reminded at once, as many as can be chosen by name; the worst come first
_OF_ONE_EVENT = 5_000  # ids: decoding one event stays below a millisecond


def remind(broadcast_id: int, *, by: Actor, now: datetime, per_person: bool = True) -> int | None:
    """Alert once more whoever is missing; return how many that are.

    Without `per_person` nothing may tell whether anybody is missing: it is done without a word of how many, and None returned.
    Raises Forbidden, NotFound, Conflict (not live, nobody is missing, reminded within the hour), Busy.
    """
    by.require(Permission.WRITE)
    broadcast = broadcasts.by_id(broadcast_id)
    if broadcast is None:
        raise NotFound("There is no such broadcast.")
    ids = broadcast_stats.missing_ids(broadcast, limit=MOST) if broadcast.is_live else []
    with writing() as session:
        broadcast = session.get(Broadcast, broadcast_id, with_for_update=ROW_LOCK)
        _refuse(broadcast, now)
        if per_person and not ids:
            raise Conflict("Nobody is missing: everybody has done it.")
        broadcast.reminded_at = now
        payload = broadcast.as_card().as_payload() | {"seq": broadcast.seq, "reminder": True}
        chunks = [ids[start : start + _OF_ONE_EVENT] for start in range(0, len(ids), _OF_ONE_EVENT)]
        detail = {"people": len(ids)} if per_person else {}
        audit.record(session, by, "broadcast.reminded", "broadcast", broadcast.id, now=now, **detail)
        session.flush()
        entries = [log.Entry(EventType.MESSAGE_UPDATED, broadcast.id, users(chunk), payload) for chunk in chunks]
        log.append(session, entries, at=now)
    notify.ring()
    return len(ids) if per_person else None


def next_at(broadcast: Broadcast) -> datetime | None:
    """The earliest moment of the next reminder; None when there was none yet."""
    return broadcast.reminded_at and broadcast.reminded_at + EVERY


def _refuse(broadcast: Broadcast, now: datetime) -> None:
    if not broadcast.is_live:
        raise Conflict("Only a broadcast that is live can be reminded of.")
    if (earliest := next_at(broadcast)) and now < earliest:
        minutes = -(-(earliest - now) // timedelta(minutes=1))
        raise Conflict(f"People were reminded within the hour. The next reminder is possible in {minutes} min.")
