"""What a worker measures about itself every few seconds, by a loop of its own: a loop that is stuck does not report itself.

Figures of the moment only; counters are counted where things happen (`metrics`).
"""

from datetime import datetime

from broadcast import metrics, untrusted
from broadcast.bus.protocol import Bus
from broadcast.hub.hub import Hub
from broadcast.store import broadcasts, database, log, plans

SECONDS = 5.0


def measure(hub: Hub, bus: Bus) -> None:
    """Set every gauge. Inside an application context; raises when the database is away, the hub's own figures being set."""
    metrics.observe(hub)
    metrics.observe_unreadable(untrusted.counts)
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
    metrics.plans_waiting.set(plans.count_waiting())


def _seconds_since(at: datetime) -> float:
    return max(0.0, (database.now() - at).total_seconds())
