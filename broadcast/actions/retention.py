"""Delete old data in short transactions of a bounded number of rows, with one audit row per run.

A run that is killed is continued by the next: broadcasts are marked before their receipts are deleted, and a broadcast
is deleted once nothing depends on it any more.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Self

import gevent
from sqlalchemy.orm import Session

from broadcast.config.settings import Settings
from broadcast.domain.actor import SYSTEM
from broadcast.store import audit, retention
from broadcast.store.transactions import write_transaction

_PAUSE_SECONDS = 0.02  # between transactions: other writers go first


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How many days each kind of data is kept; 0 means forever."""

    log_days: int
    ended_days: int
    receipts_days: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(settings.retention_log_days, settings.retention_ended_days, settings.retention_receipts_days)


@dataclass(slots=True)
class DeletedCounts:
    """How many rows a run deleted."""

    events: int = 0
    broadcasts: int = 0
    receipts: int = 0
    samples: int = 0


def delete_expired(policy: RetentionPolicy, *, now: datetime) -> DeletedCounts:
    """Delete what `policy` no longer keeps; return how much. Two workers may run at once. Lets other greenlets run."""
    deleted = DeletedCounts()
    try:
        for _ in _run_in_slices(retention.delete_unused_subscriptions):
            pass
        if policy.log_days:
            cutoff = now - timedelta(days=policy.log_days)
            for deleted_rows in _run_in_slices(lambda session: retention.delete_log_events(session, before=cutoff)):
                deleted.events += deleted_rows
            for deleted_rows in _run_in_slices(lambda session: retention.delete_samples(session, before=cutoff)):
                deleted.samples += deleted_rows
            for _ in _run_in_slices(lambda session: retention.delete_webhook_deliveries(session, before=cutoff)):
                pass
        if policy.receipts_days:
            cutoff = now - timedelta(days=policy.receipts_days)
            while ids := retention.list_ended_ids(before=cutoff, must_have_receipts=True):
                _delete_receipts(ids, deleted, now)
        if policy.ended_days:
            cutoff = now - timedelta(days=policy.ended_days)
            while ids := retention.list_ended_ids(before=cutoff):
                _delete_broadcasts(ids, deleted, now)
    finally:
        if any(asdict(deleted).values()):
            with write_transaction() as session:
                audit.record(session, SYSTEM, "retention.run", "log", None, now=now, **asdict(deleted))
    return deleted


def _delete_receipts(ids: list[int], deleted: DeletedCounts, now: datetime) -> None:
    with write_transaction() as session:
        retention.mark_receipts_deleted(session, ids, at=now)
    for deleted_rows in _run_in_slices(lambda session: retention.delete_receipts(session, ids)):
        deleted.receipts += deleted_rows
    for _ in _run_in_slices(lambda session: retention.delete_acknowledgements(session, ids)):
        pass


def _delete_broadcasts(ids: list[int], deleted: DeletedCounts, now: datetime) -> None:
    _delete_receipts(ids, deleted, now)
    for _ in _run_in_slices(lambda session: retention.delete_dependent_rows(session, ids)):
        pass
    with write_transaction() as session:
        while retention.delete_dependent_rows(session, ids):  # rows added meanwhile
            pass
        deleted.broadcasts += retention.delete_broadcasts(session, ids)
    gevent.sleep(_PAUSE_SECONDS)


def _run_in_slices(delete_slice: Callable[[Session], int]) -> Iterator[int]:
    """Call `delete_slice` in one transaction after another until it has nothing to delete."""
    while True:
        with write_transaction() as session:
            deleted_rows = delete_slice(session)
        if not deleted_rows:
            return
        yield deleted_rows
        gevent.sleep(_PAUSE_SECONDS)
