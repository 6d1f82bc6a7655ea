"""Forgetting what ended long ago: in batches of one short transaction each, with one audit row for all of a run."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import gevent
from sqlalchemy.orm import Session

from broadcast.actions import audit
from broadcast.domain.actor import SYSTEM
from broadcast.store import retention
from broadcast.store.database import writing

_PAUSE_SECONDS = 0.02  # between batches: other writers go first


@dataclass(frozen=True, slots=True)
class Keep:
    """For how many days what is kept; 0 is for ever."""

    log_days: int
    ended_days: int
    receipts_days: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many rows a run deleted."""

    events: int
    broadcasts: int
    receipts: int
    samples: int = 0

    @property
    def anything(self) -> bool:
        return any(asdict(self).values())


def run(keep: Keep, *, now: datetime) -> Forgotten:
    """Delete everything older than `keep` says; return what was deleted. Lets others run meanwhile. Raises Busy.

    Two workers may run it at the same time: each deletes what the other has left.
    """
    forgotten = Forgotten(
        events=_all(keep.log_days, lambda session, before: retention.drop_log(session, before=before), now=now),
        receipts=_all(
            keep.receipts_days, lambda session, before: retention.drop_receipts(session, before=before), now=now
        ),
        broadcasts=_all(keep.ended_days, _drop_ended, now=now),
        samples=_all(keep.log_days, lambda session, before: retention.drop_samples(session, before=before), now=now),
    )
    if forgotten.anything:
        with writing() as session:
            audit.record(session, SYSTEM, "retention.run", "log", None, now=now, **asdict(forgotten))
    return forgotten


def _drop_ended(session: Session, before: datetime) -> int:
    ids = retention.ended_ids(session, before=before)
    return retention.drop_broadcasts(session, ids) if ids else 0


def _all(days: int, drop: Callable[[Session, datetime], int], *, now: datetime) -> int:
    total = 0
    while days:
        with writing() as session:
            dropped = drop(session, now - timedelta(days=days))
        if not dropped:
            break
        total += dropped
        gevent.sleep(_PAUSE_SECONDS)
    return total
