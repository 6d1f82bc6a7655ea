"""Gauges that a worker updates every few seconds, in a loop of its own, because a stuck loop does not report itself.

Current values only; counters are incremented where things happen (`metrics`).
"""

from datetime import datetime

from broadcast.base import untrusted_json
from broadcast.bus.protocol import Bus
from broadcast.channels import webhooks as webhook_sender
from broadcast.channels.registry import CHANNELS
from broadcast.observability import metrics
from broadcast.store import broadcasts, database, deliveries, log, webhooks
from broadcast.store.deliveries import QueueState
from broadcast.streams.hub import Hub

INTERVAL_SECONDS = 5.0
_HUB_COUNTERS = {"writes": metrics.stream_writes, "opened": metrics.streams_opened, "closed": metrics.streams_closed}
_seen: dict[str, int] = {}


def update_all(hub: Hub, bus: Bus) -> None:
    """Set every gauge. Needs an application context. Raises when the database is away, after the hub's gauges."""
    metrics.open_streams.set(len(hub))
    if hub.head:
        metrics.log_seq.set(hub.head.seq)
    for name, total in hub.counters.items():
        counter_name, _, reason = name.partition(": ")
        if counter := _HUB_COUNTERS.get(counter_name):
            (counter.labels(reason) if reason else counter).inc(_compute_increase(name, total))
    for place, total in untrusted_json.rejection_counts.items():
        metrics.redis_unreadable.labels(place).inc(_compute_increase(f"unreadable {place}", total))
    backlogs = [size for connection in hub.connections if (size := connection.backlog_bytes)]
    metrics.backlog_bytes.set(sum(backlogs))
    metrics.backlog_streams.set(len(backlogs))
    metrics.people_online.set(len(hub.online_user_ids))
    metrics.redis_silence_seconds.set(bus.silent_seconds)
    pool = database.db.engine.pool
    metrics.database_connections.labels("in use").set(pool.checkedout())
    metrics.database_connections.labels("idle").set(pool.checkedin())
    _update_tail_lag(hub)
    due_at = broadcasts.get_next_due_at()
    metrics.scheduler_lag_seconds.set(_seconds_since(due_at) if due_at else 0)
    metrics.plans_waiting.set(broadcasts.count_awaiting_decision())
    _update_queues()


def _update_tail_lag(hub: Hub) -> None:
    hub_head, head = hub.head, log.get_head()
    if hub_head is None or hub_head.epoch != head.epoch:
        return  # not started, or about to begin a new epoch
    metrics.tail_lag_events.set(max(0, head.seq - hub_head.seq))
    undelivered = log.read_events(hub_head.seq, limit=1)
    metrics.tail_lag_seconds.set(_seconds_since(undelivered[0].at) if undelivered else 0)


def _update_queues() -> None:
    now = database.get_current_time()
    for channel in CHANNELS.current:
        _update_queue(channel, deliveries.measure_queue(channel, now=now))
    _update_queue(webhook_sender.CHANNEL_NAME, webhooks.measure_queue(now=now))


def _update_queue(channel: str, queue: QueueState) -> None:
    metrics.deliveries_waiting.labels(channel).set(queue.waiting)
    overdue_seconds = _seconds_since(queue.oldest_due_at) if queue.oldest_due_at else 0
    metrics.deliveries_overdue_seconds.labels(channel).set(overdue_seconds)


def _seconds_since(at: datetime) -> float:
    return max(0.0, (database.get_current_time() - at).total_seconds())


def _compute_increase(name: str, total: int) -> int:
    """How much a count has grown since the last call."""
    increase = total - _seen.get(name, 0)
    _seen[name] = total
    return increase
