"""The Kafka bridge: records become broadcasts (docs/architecture.md, journey 3).

One worker of all reads every partition (`elected`), or the brokers spread them over all (`every-worker`). Each batch is
one transaction, and its offsets are committed after it: after a crash its records come again, and are recognised as
duplicates. While one batch is written the next is polled and read, except when the brokers assign the partitions: then
each poll may begin a rebalance. After any error the consumer is discarded, and a new one begins at the committed
offsets: no record is ever skipped.
"""

import contextvars
import time
from collections import Counter
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import gevent
import structlog
from flask import Flask
from gevent import Greenlet
from gevent.event import Event

from broadcast.actions import inbound_events
from broadcast.base.cooperative import Yielder
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.inbound import InboundEvent
from broadcast.ingest import contract
from broadcast.ingest.kafka import client
from broadcast.ingest.kafka.broker_check import BrokersUnavailable, ConnectionMonitor, check_brokers
from broadcast.ingest.kafka.dead_letter_topic import DeadLetterForwarder
from broadcast.ingest.rules import RULES
from broadcast.observability import metrics
from broadcast.store import system_identity
from broadcast.store.leader_lock import LeaderLock

if TYPE_CHECKING:
    from kafka import KafkaConsumer

    from broadcast.ingest.kafka.record_batches import DecodedRecord

_log = structlog.get_logger(__name__)
_POLL_TIMEOUT_MS = 400
_LINGER_SECONDS = 0.03  # after a batch, wait this long for more records
_ELECTION_INTERVAL_SECONDS = 0.25  # a successor begins at most this long after its predecessor ends
_CHECK_INTERVAL_SECONDS = 1.0  # between checks of the connection, the leader lock and the lag
_TOPICS_INTERVAL_SECONDS = 10.0  # between checks for new topics and partitions
_PROBE_INTERVAL_SECONDS, _FAILED_PROBE_INTERVAL_SECONDS = 15.0, 5.0  # of a worker that is not elected
_FORWARD_RETRY_SECONDS = 30.0  # after a dead-letter topic could not be written
_UNKNOWN_LAG = float("nan")
_RIVAL_ALERT_SECONDS = 60.0  # the alert stays this long after the rival was last seen
_NOT_CONNECTED_YET = "The brokers have not been reached yet."
_RIVAL_CONSUMER = (
    "Another system reads under the same KAFKA_GROUP_ID, or somebody has set its offsets: each "
    "misses what the other got."
)
_BACKOFF_SECONDS = (0.2, 2.0)  # the first and the longest

_PolledRecords = dict[Any, list["DecodedRecord"]]  # by partition


class KafkaBridge:
    """Reads for one worker, from one greenlet. `problem` is a sentence while it cannot, else None."""

    def __init__(self, app: Flask, settings: Settings, leader_lock: LeaderLock | None):
        """With `leader_lock` one of all workers reads every partition; with None the brokers assign them."""
        self._app, self._settings, self._leader_lock = app, settings, leader_lock
        self._stop_event = Event()
        self.problem: str | None = _NOT_CONNECTED_YET  # unhealthy until the brokers are reached

    def stop(self) -> None:
        """Ask the loop to end after the current batch, within a second. Does not block."""
        self._stop_event.set()

    def run(self) -> None:
        """Read until `stop`. Errors are reported in `problem` and retried."""
        backoff_seconds = _BACKOFF_SECONDS[0]
        next_probe_at = 0.0
        while not self._stop_event.is_set():
            try:
                if self._is_elected():
                    self._read_until_change()
                    backoff_seconds = _BACKOFF_SECONDS[0]
                elif time.monotonic() >= next_probe_at:
                    # probes as the reader does, so that this worker's /readyz is not blindly healthy
                    self.problem = check_brokers(self._settings)
                    pause_seconds = _FAILED_PROBE_INTERVAL_SECONDS if self.problem else _PROBE_INTERVAL_SECONDS
                    next_probe_at = time.monotonic() + pause_seconds
                self._stop_event.wait(_ELECTION_INTERVAL_SECONDS)
            except Exception as problem:
                # /readyz is public: a library's error text stays in the log
                is_public = isinstance(problem, BrokersUnavailable)
                self.problem = str(problem) if is_public else f"It failed ({type(problem).__name__}); see the log."
                description = f"{type(problem).__name__}: {problem}"[:300]
                _log.error("bridge.failed", problem=description, again_in_seconds=backoff_seconds)
                metrics.kafka_failures.inc()
                self._stop_event.wait(backoff_seconds)
                backoff_seconds = min(backoff_seconds * 2, _BACKOFF_SECONDS[1])

    def _resolve_group_id(self) -> Settings:
        if self._settings.kafka_group_id:
            return self._settings
        with self._app.app_context():
            return self._settings.model_copy(update={"kafka_group_id": system_identity.get_kafka_group()})

    def _is_elected(self) -> bool:
        if self._leader_lock is None:
            return True
        with self._app.app_context():
            return self._leader_lock.try_acquire()

    def _read_until_change(self) -> None:
        """Read until `stop`, a lost election or changed partitions. Raises any error."""
        settings = self._resolve_group_id()
        consumer = client.create_consumer(settings)
        is_sole_reader = self._leader_lock is not None
        consumer_session = _ConsumerSession(self._app, settings, consumer, self._stop_event, is_sole_reader)
        try:
            consumer_session.start_reading()
            _log.info("bridge.reading", topics=self._settings.kafka_topics)
            while not self._stop_event.is_set() and not consumer_session.has_new_partitions():
                if consumer_session.is_check_due():
                    if not self._is_elected():
                        return
                    self.problem = consumer_session.check_health()
                consumer_session.process_batch()
            consumer_session.finish_batch()
        finally:
            consumer_session.close()
            if self._leader_lock is not None:
                with self._app.app_context():
                    self._leader_lock.release()


class _ConsumerSession:
    """The lifetime of one consumer."""

    def __init__(
        self, app: Flask, settings: Settings, consumer: "KafkaConsumer", stop_event: Event, is_sole_reader: bool
    ):
        self._app, self._settings, self._consumer = app, settings, consumer
        self._stop_event, self._is_sole_reader = stop_event, is_sole_reader
        self._connection_monitor: ConnectionMonitor | None = None
        self._forwarder = DeadLetterForwarder(app, settings) if settings.kafka_dlt else None
        self._next_forward_at: float | None = 0.0  # at once: the previous worker may have left some
        self._next_check_at = self._last_written_at = 0.0
        self._next_topics_check_at = time.monotonic() + _TOPICS_INTERVAL_SECONDS
        self._lag_labels: set[tuple[str, int]] = set()
        # by partition: the committed offset at the brokers, if this system wrote it
        self._committed_offsets: dict[Any, int | None] = {}
        self._rival_until = 0.0
        self._batch_in_flight: tuple[Greenlet, _PolledRecords] | None = None  # its writer, and the batch
        with app.app_context():
            self._actor = inbound_events.get_ingest_actor(now=clock.now())

    def start_reading(self) -> None:
        """Assign every partition, or join the group. Raises BrokersUnavailable."""
        self._connection_monitor = ConnectionMonitor(self._consumer, self._settings)
        partitions = self._find_partitions()
        if not partitions:
            raise BrokersUnavailable(self._connection_monitor.describe_missing_topics())
        if self._is_sole_reader:
            self._consumer.assign(partitions)
            self._committed_offsets = self._fetch_committed_offsets()
        else:
            self._consumer.subscribe(self._settings.kafka_topics)

    def has_new_partitions(self) -> bool:
        """Whether the partitions to read have changed; a group notices that itself."""
        if time.monotonic() < self._next_topics_check_at:
            return False
        self._next_topics_check_at = time.monotonic() + _TOPICS_INTERVAL_SECONDS
        current_partitions = set(self._find_partitions())
        if self._is_sole_reader:
            self._detect_rival_consumer()
        return self._is_sole_reader and current_partitions != self._consumer.assignment()

    def _detect_rival_consumer(self) -> None:
        """Detect another consumer that commits offsets of this group: each misses the records that the other reads."""
        broker_offsets = self._fetch_committed_offsets()
        if any(offset != self._committed_offsets.get(where) for where, offset in broker_offsets.items()):
            _log.error("bridge.rival", group=self._settings.kafka_group_id)
            self._rival_until = time.monotonic() + _RIVAL_ALERT_SECONDS
        self._committed_offsets = broker_offsets

    def _fetch_committed_offsets(self) -> dict[Any, int | None]:
        partitions, milliseconds = list(self._consumer.assignment()), self._settings.kafka_request_timeout_ms
        committed = self._consumer._coordinator.fetch_committed_offsets(partitions, timeout_ms=milliseconds)
        return {where: committed[where].offset if where in committed else None for where in partitions}

    def _find_partitions(self) -> list[Any]:
        from kafka import TopicPartition

        numbers_by_topic = self._connection_monitor.fetch_partitions()
        return [TopicPartition(topic, n) for topic, numbers in numbers_by_topic.items() for n in sorted(numbers)]

    def process_batch(self) -> None:
        """One batch, one transaction, one commit of offsets; `finish_batch` ends the last one. Raises its error."""
        self._forward_dead_letters()
        polled = self._poll()
        now = clock.now()
        batch = self._read_records(polled, now)
        written_records = self._await_batch_in_flight()
        if polled and not self._stop_event.is_set():  # when stopping, they belong to the next worker
            context = contextvars.copy_context()  # as in `runtime`: a greenlet does not inherit it
            self._batch_in_flight = gevent.spawn(context.run, self._write_batch, batch, now), polled
        self._commit_offsets(written_records)
        if not self._is_sole_reader:
            self.finish_batch()

    def finish_batch(self) -> None:
        """Wait for the batch in flight and commit its offsets. Raises its error."""
        self._commit_offsets(self._await_batch_in_flight())

    def _await_batch_in_flight(self) -> _PolledRecords:
        """The records of the batch in flight, once it is written."""
        if self._batch_in_flight is None:
            return {}
        writer, polled = self._batch_in_flight
        if (problem := writer.get()) is not None:
            raise problem
        self._batch_in_flight, self._last_written_at = None, time.monotonic()
        return polled

    def _poll(self) -> _PolledRecords:
        """Wait for records, unless a batch is in flight. Records shortly after a batch are collected first: with one
        transaction each, a few hundred a second would never be finished.
        """
        is_in_flight = self._batch_in_flight is not None
        polled = self._consumer.poll(timeout_ms=0 if is_in_flight else _POLL_TIMEOUT_MS)
        should_linger = is_in_flight or time.monotonic() - self._last_written_at <= _LINGER_SECONDS
        if not self._is_sole_reader or not should_linger:
            return polled
        deadline = time.monotonic() + _LINGER_SECONDS
        while polled and (remaining_seconds := deadline - time.monotonic()) > 0:
            remaining_records = inbound_events.MAX_BATCH_EVENTS - sum(map(len, polled.values()))
            if remaining_records <= 0:
                break
            for partition, records in self._consumer.poll(
                timeout_ms=round(remaining_seconds * 1000), max_records=remaining_records
            ).items():
                polled[partition] = polled.get(partition, []) + records
        return polled

    def _forward_dead_letters(self) -> None:
        if self._forwarder and self._next_forward_at is not None and time.monotonic() >= self._next_forward_at:
            self._next_forward_at = None  # before the call: the batch in flight may bring more
            if not self._forwarder.forward_pending():
                self._next_forward_at = time.monotonic() + _FORWARD_RETRY_SECONDS

    def _read_records(self, polled: _PolledRecords, now: datetime) -> list[InboundEvent]:
        batch, yielder = [], Yielder()
        for decoded in chain.from_iterable(polled.values()):
            command = decoded.rejection or contract.read_command(decoded.record, now=now, rules=RULES.of(self._app))
            batch.append(InboundEvent(decoded.record, command))
            yielder.maybe_yield()
        return batch

    def _write_batch(self, batch: list[InboundEvent], now: datetime) -> Exception | None:
        """Write a batch; return its error, because gevent prints what a greenlet raises."""
        started_at = time.monotonic()
        try:
            with self._app.app_context():
                outcomes = inbound_events.ingest(batch, by=self._actor, now=now)
        except Exception as problem:
            return problem
        for kind, count in Counter(outcome.kind for outcome in outcomes).items():
            metrics.inbound_events.labels("kafka", kind).inc(count)
        if self._next_forward_at is None and any(outcome.rejection is not None for outcome in outcomes):
            self._next_forward_at = 0.0
        metrics.kafka_records.inc(len(batch))
        metrics.kafka_batch_seconds.observe(time.monotonic() - started_at)
        return None

    def _commit_offsets(self, polled: _PolledRecords) -> None:
        from kafka import OffsetAndMetadata

        if not polled:
            return
        offsets = {where: OffsetAndMetadata(records[-1].next_offset) for where, records in polled.items()}
        self._consumer.commit(offsets, timeout_ms=self._settings.kafka_request_timeout_ms)
        self._committed_offsets |= {where: records[-1].next_offset for where, records in polled.items()}

    def is_check_due(self) -> bool:
        return time.monotonic() >= self._next_check_at

    def check_health(self) -> str | None:
        """Measure the lag, and describe a problem of the connection, if there is one."""
        previous_check_at, self._next_check_at = self._next_check_at, time.monotonic() + _CHECK_INTERVAL_SECONDS
        for partition in self._consumer.assignment():
            self._record_lag(partition)
        if previous_check_at and not self._connection_monitor.is_connected():
            self._reset_lags()
            return self._connection_monitor.failure_reason or "No link to a broker; it is tried again and again."
        rival_problem = _RIVAL_CONSUMER if time.monotonic() < self._rival_until else None
        return self._connection_monitor.describe_missing_topics() or rival_problem

    def _record_lag(self, partition: Any) -> None:
        high_watermark = self._consumer.highwater(partition)
        position = self._consumer.position(partition, timeout_ms=100)
        in_flight_count = len(self._batch_in_flight[1].get(partition, ())) if self._batch_in_flight else 0
        is_known = high_watermark is not None and position is not None
        lag = high_watermark - position + in_flight_count if is_known else _UNKNOWN_LAG
        metrics.kafka_lag.labels(partition.topic, partition.partition).set(lag)
        self._lag_labels.add((partition.topic, partition.partition))

    def _reset_lags(self) -> None:
        """The lag is unknown, not zero, while the brokers do not answer."""
        for topic, partition in self._lag_labels:
            metrics.kafka_lag.labels(topic, partition).set(_UNKNOWN_LAG)

    def close(self) -> None:
        """Close the connections, within a second of the batch in flight. The lag is then unknown."""
        if self._batch_in_flight is not None:
            self._batch_in_flight[0].join()
        client.close_consumer(self._consumer)
        if self._forwarder:
            self._forwarder.close()
        self._reset_lags()
