"""What a worker measures about itself every few seconds, by a loop of its own: a loop that is stuck does not report itself.

Figures of the moment only; counters are counted where things happen (`metrics`).
"""

from collections.abc import Mapping
from datetime import datetime

from broadcast.base import untrusted_json
from broadcast.bus.protocol import Bus
from broadcast.observability import metrics
from broadcast.store import broadcasts, database, log, overdue_schedules
from broadcast.streams.hub import Hub

SECONDS = 5.0
_seen: dict[str, int] = {}


def measure(hub: Hub, bus: Bus) -> None:
    """Set every gauge. Inside an application context; raises when the database is away, the hub's own figures being set."""
    observe_hub(hub)
    observe_unreadable(untrusted_json.counts)
    waiting = [size for connection in hub.connections if (size := connection.backlog_bytes)]
    metrics.backlog_bytes.set(sum(waiting))
    metrics.backlog_streams.set(len(waiting))
    metrics.people_online.set(len(hub.users()))
    metrics.ring_age_seconds.set(bus.silent_seconds)
    in_use, idle = database.pool_use()
    metrics.database_connections.labels("in use").set(in_use)
    metrics.database_connections.labels("idle").set(idle)
    _measure_lag(hub)
    _measure_clock()


def _measure_lag(hub: Hub) -> None:
    ours, head = hub.head, log.head()
    if ours is None or ours.epoch != head.epoch:
        return  # not begun, or about to begin anew
    metrics.tail_lag_events.set(max(0, head.seq - ours.seq))
    waiting = log.read(ours.seq, limit=1)
    metrics.tail_lag_seconds.set(_seconds_since(waiting[0].at) if waiting else 0)


def _measure_clock() -> None:
    due_at = broadcasts.next_due_at()
    metrics.clock_lag_seconds.set(_seconds_since(due_at) if due_at else 0)
    metrics.plans_waiting.set(overdue_schedules.count_waiting())


def _seconds_since(at: datetime) -> float:
    return max(0.0, (database.now() - at).total_seconds())


def observe_hub(hub: Hub) -> None:
    """Bring the metrics up to the hub's own counters. Does not block."""
    metrics.streams.set(len(hub))
    if hub.head:
        metrics.seq.set(hub.head.seq)
    for name, total in hub.counters.items():
        grown = total - _seen.get(name, 0)
        _seen[name] = total
        if name == "writes":
            metrics.writes.inc(grown)
        elif name == "opened":
            metrics.opened.inc(grown)
        elif name.startswith("closed: "):
            metrics.closed.labels(name.removeprefix("closed: ")).inc(grown)


def observe_unreadable(counts: Mapping[str, int]) -> None:
    """Bring the counter of what was left out up to `counts`, by place."""
    for place, total in counts.items():
        metrics.redis_unreadable.labels(place).inc(total - _seen.get(f"unreadable {place}", 0))
        _seen[f"unreadable {place}"] = total
