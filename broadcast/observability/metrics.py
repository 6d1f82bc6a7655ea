"""Prometheus metrics, correct over all workers: each writes its own file, and a scrape of any worker adds them up.

The hub counts in plain integers and does not know Prometheus; `gauges` copies them. `docs/operations.md` explains each
metric.
"""

import os
from contextlib import suppress
from functools import partial
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_SumGauge = partial(Gauge, multiprocess_mode="livesum")
_MaxGauge = partial(Gauge, multiprocess_mode="livemax")
_NewestGauge = partial(Gauge, multiprocess_mode="livemostrecent")

open_streams = _SumGauge("broadcast_streams", "Open streams")
stream_writes = Counter("broadcast_stream_writes", "Writes of events to streams")
streams_opened = Counter("broadcast_streams_opened", "Streams opened")
streams_closed = Counter("broadcast_streams_closed", "Streams closed, by reason", ["reason"])
people_online = _SumGauge("broadcast_users_online", "People with an open stream, counted once in each worker")
backlog_bytes = _SumGauge("broadcast_backlog_bytes", "Bytes that wait for slow clients")
backlog_streams = _SumGauge("broadcast_backlog_streams", "Streams with bytes that wait")
delivery_seconds = Histogram(
    "broadcast_delivery_seconds",
    "From an event's moment to its last write to this worker's streams",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
)
tail_lag_events = _MaxGauge("broadcast_tail_lag_events", "Events that the slowest worker has not delivered yet")
tail_lag_seconds = _MaxGauge("broadcast_tail_lag_seconds", "Age of the oldest event not delivered yet")
redis_silence_seconds = _MaxGauge("broadcast_redis_silence_seconds", "Since a worker last heard from Redis, at worst")
scheduler_lag_seconds = _MaxGauge("broadcast_scheduler_lag_seconds", "How long the oldest due broadcast is overdue")
plans_waiting = _NewestGauge("broadcast_schedules_waiting", "Plans that wait for somebody to decide")
database_connections = _SumGauge("broadcast_database_connections", "Database connections, by state", ["state"])
limiter_in_memory = _SumGauge("broadcast_limiter_in_memory", "Workers that count limits by themselves")
redis_unreadable = Counter(
    "broadcast_redis_unreadable", "Values in Redis that this system did not write, left out, by place", ["place"]
)
loop_failures = Counter("broadcast_loop_failures", "Times a background loop failed and was restarted", ["loop"])
request_seconds = Histogram(
    "broadcast_request_seconds", "Requests answered, by class of status; streams left out", ["status"], buckets=_SECONDS
)
log_epochs = Counter("broadcast_log_epochs", "Times committed events were found to be gone and a new epoch was begun")
log_seq = Gauge("broadcast_log_seq", "Newest event that the slowest worker has delivered", multiprocess_mode="livemin")

inbound_events = Counter(
    "broadcast_events",
    "Events from outside, by their source (Kafka, webhook) and what became of them",
    ["source", "outcome"],
)
kafka_records = Counter("broadcast_kafka_records", "Records read from Kafka and done with")
kafka_failures = Counter("broadcast_kafka_failures", "Times the bridge began anew after an error")
kafka_batch_seconds = Histogram("broadcast_kafka_batch_seconds", "One batch into the database", buckets=_SECONDS)
kafka_lag = _NewestGauge("broadcast_kafka_lag", "Records waiting at the brokers", ["topic", "partition"])

deliveries_waiting = _NewestGauge("broadcast_deliveries_waiting", "Deliveries in the outbox, by channel", ["channel"])
deliveries_overdue_seconds = _NewestGauge(
    "broadcast_deliveries_overdue_seconds", "How long the oldest delivery is due, by channel", ["channel"]
)
delivery_outcomes = Counter(
    "broadcast_deliveries", "What became of deliveries, by channel and outcome", ["channel", "outcome"]
)


def preallocate_files() -> None:
    """Allocate this worker's metric files on disk now. They are mapped and sparse: if the disk or /dev/shm is full when
    a page is first touched, SIGBUS kills the process.
    """
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        for path in Path(folder).glob(f"*_{os.getpid()}.db"):
            with path.open("r+b") as file, suppress(OSError):  # full by now: the files stay as they are
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def render_metrics() -> bytes:
    """The metrics in Prometheus' text format."""
    return generate_latest(_build_registry())


def sum_counter(name: str, **labels: str) -> int:
    """A counter summed over all workers, by its sample name (`…_total`); `labels` narrow it."""
    samples = (sample for family in _build_registry().collect() for sample in family.samples if sample.name == name)
    return int(sum(sample.value for sample in samples if labels.items() <= sample.labels.items()))


def _build_registry() -> CollectorRegistry:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return registry
