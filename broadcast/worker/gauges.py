"""Gauges that a worker updates every few seconds, in a loop of its own, because a stuck loop does not report itself.

Current values only; counters are incremented where things happen (`metrics`).
"""

from collections.abc import Mapping
from datetime import datetime

from broadcast.base import untrusted_json
from broadcast.bus.protocol import Bus
from broadcast.observability import metrics
from broadcast.store import broadcasts, database, log, overdue_schedules
from broadcast.streams.hub import Hub

INTERVAL_SECONDS = 5.0
_seen: dict[str, int] = {}


def update_all(hub: Hub, bus: Bus) -> None:
    """Set every gauge. Needs an application context. Raises when the database is away, after the hub's gauges."""
    observe_hub(hub)
    observe_unreadable(untrusted_json.rejection_counts)
    backlogs = [size for connection in hub.connections if (size := connection.backlog_bytes)]
    metrics.backlog_bytes.set(sum(backlogs))
    metrics.backlog_streams.set(len(backlogs))
    metrics.people_online.set(len(hub.online_user_ids))
    metrics.redis_silence_seconds.set(bus.silent_seconds)
    in_use, idle = database.get_pool_usage()
    metrics.database_connections.labels("in use").set(in_use)
    metrics.database_connections.labels("idle").set(idle)
    _update_tail_lag(hub)
    _update_scheduler_lag()


def _update_tail_lag(hub: Hub) -> None:
    hub_head, head = hub.head, log.get_head()
    if hub_head is None or hub_head.epoch != head.epoch:
        return  # not started, or about to begin a new epoch
    metrics.tail_lag_events.set(max(0, head.seq - hub_head.seq))
    undelivered = log.read_events(hub_head.seq, limit=1)
    metrics.tail_lag_seconds.set(_seconds_since(undelivered[0].at) if undelivered else 0)


def _update_scheduler_lag() -> None:
    due_at = broadcasts.get_next_due_at()
    metrics.scheduler_lag_seconds.set(_seconds_since(due_at) if due_at else 0)
    metrics.plans_waiting.set(overdue_schedules.count_waiting())


def _seconds_since(at: datetime) -> float:
    return max(0.0, (database.get_current_time() - at).total_seconds())


def observe_hub(hub: Hub) -> None:
    """Copy the hub's counters to the metrics. Does not block."""
    metrics.open_streams.set(len(hub))
    if hub.head:
        metrics.log_seq.set(hub.head.seq)
    for name, total in hub.counters.items():
        grown = total - _seen.get(name, 0)
        _seen[name] = total
        if name == "writes":
            metrics.stream_writes.inc(grown)
        elif name == "opened":
            metrics.streams_opened.inc(grown)
        elif name.startswith("closed: "):
            metrics.streams_closed.labels(name.removeprefix("closed: ")).inc(grown)


def observe_unreadable(counts: Mapping[str, int]) -> None:
    """Copy the counts of rejected data, by place, to the counter."""
    for place, total in counts.items():
        metrics.redis_unreadable.labels(place).inc(total - _seen.get(f"unreadable {place}", 0))
        _seen[f"unreadable {place}"] = total
