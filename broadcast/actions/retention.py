"""Forgetting what ended long ago: in short transactions of a bounded number of rows, with one audit row for all of a run.

Wherever a run is killed, the next one goes on: broadcasts whose receipts are being deleted are marked first, and a broadcast
goes when nothing hangs on it any more.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Self

import gevent
from sqlalchemy.orm import Session

from broadcast.actions import audit
from broadcast.config.settings import Settings
from broadcast.domain.actor import SYSTEM
from broadcast.store import retention
from broadcast.store.database import writing

_PAUSE_SECONDS = 0.02  # between transactions: other writers go first


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """For how many days what is kept; 0 is for ever."""

    log_days: int
    ended_days: int
    receipts_days: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(settings.retention_log_days, settings.retention_ended_days, settings.retention_receipts_days)


@dataclass(slots=True)
class Forgotten:
    """How many rows a run deleted."""

    events: int = 0
    broadcasts: int = 0
    receipts: int = 0
    samples: int = 0

    @property
    def anything(self) -> bool:
        return any(asdict(self).values())


def run(keep: RetentionPolicy, *, now: datetime) -> Forgotten:
    """Delete everything older than `keep` says; return what was deleted. Lets others run meanwhile. Raises Busy.

    Two workers may run it at the same time: each deletes what the other has left.
    """
    forgotten = Forgotten()
    try:
        if keep.log_days:
            before = now - timedelta(days=keep.log_days)
            for dropped in _slices(lambda session: retention.drop_log(session, before=before)):
                forgotten.events += dropped
            for dropped in _slices(lambda session: retention.drop_samples(session, before=before)):
                forgotten.samples += dropped
        if keep.receipts_days:
            before = now - timedelta(days=keep.receipts_days)
            while ids := retention.ended_with_receipts(before=before):
                _forget_receipts(ids, forgotten, now)
        if keep.ended_days:
            before = now - timedelta(days=keep.ended_days)
            while ids := retention.ended(before=before):
                _forget_broadcasts(ids, forgotten, now)
    finally:
        if forgotten.anything:
            with writing() as session:
                audit.record(session, SYSTEM, "retention.run", "log", None, now=now, **asdict(forgotten))
    return forgotten


def _forget_receipts(ids: list[int], forgotten: Forgotten, now: datetime) -> None:
    with writing() as session:
        retention.mark(session, ids, at=now)
    for dropped in _slices(lambda session: retention.drop_receipts(session, ids)):
        forgotten.receipts += dropped
    for _ in _slices(lambda session: retention.drop_acknowledged(session, ids)):
        pass


def _forget_broadcasts(ids: list[int], forgotten: Forgotten, now: datetime) -> None:
    _forget_receipts(ids, forgotten, now)
    for _ in _slices(lambda session: retention.drop_rest(session, ids)):
        pass
    with writing() as session:
        while retention.drop_rest(session, ids):  # what came in between
            pass
        forgotten.broadcasts += retention.drop_broadcasts(session, ids)
    gevent.sleep(_PAUSE_SECONDS)


def _slices(drop: Callable[[Session], int]) -> Iterator[int]:
    """Call `drop` in one transaction after the other until it has nothing to delete."""
    while True:
        with writing() as session:
            dropped = drop(session)
        if not dropped:
            return
        yield dropped
        gevent.sleep(_PAUSE_SECONDS)
