"""How fast e-mail may go, for all workers of all nodes together: each mail moves the time of the next one.

Time in which nothing was sent is not saved up, except for two seconds, as a worker looks once a second. In the database
and not in Redis: a mail is claimed there in the same transaction, and the limit holds while Redis is away.
"""

from datetime import datetime, timedelta

from sqlalchemy import update
from sqlalchemy.orm import Session

from broadcast.store.database import ROW_LOCK
from broadcast.store.models import EmailPace

_MAX_SAVED = timedelta(seconds=2)
UNLIMITED = 1_000_000


def count_allowed(session: Session, max_per_minute: int, *, now: datetime) -> int:
    """How many mails may be sent now; UNLIMITED if `max_per_minute` is 0. Other workers wait for the transaction."""
    if not max_per_minute:
        return UNLIMITED
    start = _get_start(session, now)
    return 0 if start > now else int((now - start) / timedelta(minutes=1) * max_per_minute) + 1


def record_sent(session: Session, count: int, max_per_minute: int, *, now: datetime) -> None:
    """Record that so many are sent, in the transaction of `count_allowed`."""
    if max_per_minute and count:
        next_at = _get_start(session, now) + timedelta(minutes=1) / max_per_minute * count
        session.execute(update(EmailPace).values(next_at=next_at))


def _get_start(session: Session, now: datetime) -> datetime:
    pace = session.get(EmailPace, 1, with_for_update=ROW_LOCK)
    return max(pace.next_at or now, now - _MAX_SAVED)
