"""The bridge: records of Kafka become broadcasts.

1. Be the one that reads (`elected`), or join the group (`every-worker`).
2. Poll at most 500 records as raw bytes.      4. Write them in one transaction (`actions.events`).
3. Read each under the contract.               5. Commit the offsets. Not before: what a crash leaves uncommitted comes again,
                                                  and is found as repeated.
While one batch is written the next is polled and read, unless the brokers share the partitions out: there each poll may begin a
rebalance.

After any error the consumer is thrown away and a new one begins at the committed offsets: no record is ever skipped.
"""

import contextvars
import time
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

import gevent
import structlog
from flask import Flask
from gevent import Greenlet
from gevent.event import Event as Bell

from broadcast.actions import inbound_events
from broadcast.base.cooperative import Breath
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.inbound import Arrival
from broadcast.ingest import contract
from broadcast.ingest.kafka import broker_check, client
from broadcast.ingest.kafka.broker_check import BrokerAway, Link
from broadcast.ingest.kafka.dead_letter_topic import Forwarder
from broadcast.ingest.rules import RULES
from broadcast.observability import metrics
from broadcast.store import system_identity
from broadcast.store.leader_lock import Lease

if TYPE_CHECKING:
    from kafka import KafkaConsumer

    from broadcast.ingest.kafka.record_batches import Decoded

_log = structlog.get_logger(__name__)
_POLL_MS = 400
_CLOSE_SECONDS = 0.03  # what follows a batch this closely waits this long for more
_ELECTION_SECONDS = 0.25  # a successor begins this long after the end of the one before, at the latest
_LOOK_SECONDS = 1.0  # between looks at the link, the lease and the lag
_TOPICS_SECONDS = 10.0  # between looks for new topics and partitions
_PROBE_SECONDS, _PROBE_ILL_SECONDS = 15.0, 5.0  # between looks of a worker that is not elected
_FORWARD_SECONDS = 30.0  # after the topic of dead letters could not be written
_UNKNOWN = float("nan")
_RIVAL_SECONDS = 60.0  # it is told so long after it was last seen
_NOT_YET = "The brokers have not been reached yet."
_RIVAL = "Another system reads under the same KAFKA_GROUP_ID, or somebody has set its offsets: each misses what the other got."
_PAUSES = (0.2, 2.0)  # after the first error, and at most

_Polled = dict[Any, list["Decoded"]]  # by partition


class Bridge:
    """Reads for one worker, from one greenlet. `problem` is a sentence while it cannot, None when all is well."""

    def __init__(self, app: Flask, settings: Settings, lease: Lease | None):
        """`lease` makes one of all workers the reader of every partition; with None the brokers share them out."""
        self._app, self._settings, self._lease = app, settings, lease
        self._stopping = Bell()
        self.problem: str | None = _NOT_YET  # well is only what has been seen to be well

    def stop(self) -> None:
        """Ask the loop to end after the batch it is at, within a second. Does not block."""
        self._stopping.set()

    def run(self) -> None:
        """Read until `stop`; errors are told in `problem` and tried again."""
        pause = _PAUSES[0]
        probe_at = 0.0
        while not self._stopping.is_set():
            try:
                if self._is_elected():
                    self._read()
                    pause = _PAUSES[0]
                elif time.monotonic() >= probe_at:
                    self.problem = broker_check.examine(
                        self._settings
                    )  # as the reader does: its /readyz must not be well blindly
                    probe_at = time.monotonic() + (_PROBE_ILL_SECONDS if self.problem else _PROBE_SECONDS)
                self._stopping.wait(_ELECTION_SECONDS)
            except Exception as problem:
                is_told = isinstance(problem, BrokerAway)  # /readyz is for anyone: what a library says stays in the log
                self.problem = str(problem) if is_told else f"It failed ({type(problem).__name__}); see the log."
                _log.error(
                    "bridge.failed", problem=f"{type(problem).__name__}: {problem}"[:300], again_in_seconds=pause
                )
                metrics.kafka_failures.inc()
                self._stopping.wait(pause)
                pause = min(pause * 2, _PAUSES[1])

    def _with_group(self) -> Settings:
        if self._settings.kafka_group_id:
            return self._settings
        with self._app.app_context():
            return self._settings.model_copy(update={"kafka_group_id": system_identity.kafka_group()})

    def _is_elected(self) -> bool:
        if self._lease is None:
            return True
        with self._app.app_context():
            return self._lease.take()

    def _read(self) -> None:
        """Read until something changes: asked to stop, no longer elected, other partitions. Raises what goes wrong."""
        settings = self._with_group()
        consumer = client.consumer(settings)
        is_alone = self._lease is not None
        reading = _Reading(self._app, settings, consumer, stopping=self._stopping, is_alone=is_alone)
        try:
            reading.begin()
            _log.info("bridge.reading", topics=self._settings.kafka_topics)
            while not self._stopping.is_set() and not reading.has_new_partitions():
                if reading.is_time_to_look():
                    if not self._is_elected():
                        return
                    self.problem = reading.look()
                reading.turn()
            reading.finish()
        finally:
            reading.close()
            if self._lease is not None:
                with self._app.app_context():
                    self._lease.release()


class _Reading:
    """The life of one consumer."""

    def __init__(self, app: Flask, settings: Settings, consumer: "KafkaConsumer", *, stopping: Bell, is_alone: bool):
        self._app, self._settings, self._consumer = app, settings, consumer
        self._stopping, self._is_alone = stopping, is_alone
        self._link: Link | None = None
        self._forwarder = Forwarder(app, settings) if settings.kafka_dlt else None
        self._forward_at: float | None = 0.0  # at once: the worker before may have left some
        self._look_at = self._written_at = 0.0
        self._topics_at = time.monotonic() + _TOPICS_SECONDS
        self._lags: set[tuple[str, int]] = set()
        self._committed: dict[Any, int | None] = {}  # what is at the brokers, by partition, as far as it is ours
        self._rival_until = 0.0
        self._missing: list[str] = []
        self._unfinished: tuple[Greenlet, _Polled] | None = None  # what writes a batch, and the batch
        with app.app_context():
            self._account = inbound_events.account(now=clock.now())

    def begin(self) -> None:
        """Take every partition, or join the group. Raises BrokerAway."""
        self._link = Link(self._consumer, self._settings)
        partitions = self._partitions()
        if not partitions:
            raise BrokerAway(broker_check.missing(self._missing))
        if self._is_alone:
            self._consumer.assign(partitions)
            self._committed = self._offsets_at_the_brokers()
        else:
            self._consumer.subscribe(self._settings.kafka_topics)

    def has_new_partitions(self) -> bool:
        """Whether what is to be read has changed; a group sees that by itself."""
        if time.monotonic() < self._topics_at:
            return False
        self._topics_at = time.monotonic() + _TOPICS_SECONDS
        found = set(self._partitions())
        if self._is_alone:
            self._look_for_rivals()
        return self._is_alone and found != self._consumer.assignment()

    def _look_for_rivals(self) -> None:
        """Whoever else commits offsets of this group reads what is meant for this system: each misses what the other got."""
        there = self._offsets_at_the_brokers()
        if any(offset != self._committed.get(where) for where, offset in there.items()):
            _log.error("bridge.rival", group=self._settings.kafka_group_id)
            self._rival_until = time.monotonic() + _RIVAL_SECONDS
        self._committed = there

    def _offsets_at_the_brokers(self) -> dict[Any, int | None]:
        partitions, milliseconds = list(self._consumer.assignment()), self._settings.kafka_request_timeout_ms
        found = self._consumer._coordinator.fetch_committed_offsets(partitions, timeout_ms=milliseconds)
        return {where: found[where].offset if where in found else None for where in partitions}

    def _partitions(self) -> list[Any]:
        from kafka import TopicPartition

        found = self._link.partitions()
        self._missing = [topic for topic, numbers in found.items() if not numbers]
        return [TopicPartition(topic, number) for topic, numbers in found.items() for number in sorted(numbers)]

    def turn(self) -> None:
        """One batch, one transaction, one commit of offsets; `finish` ends the last. Raises what went wrong with a batch."""
        self._forward()
        polled = self._poll()
        now = clock.now()
        arrivals = self._arrivals(polled, now)
        written = self._written()
        if polled and not self._stopping.is_set():  # else it is another worker's
            context = contextvars.copy_context()  # as in `runtime`: a greenlet does not inherit it
            self._unfinished = gevent.spawn(context.run, self._ingest, arrivals, now), polled
        if written:
            self._commit(written)
        if not self._is_alone:
            self.finish()

    def finish(self) -> None:
        """Wait until the batch under way is written, and commit its offsets. Raises what went wrong with it."""
        if written := self._written():
            self._commit(written)

    def _written(self) -> _Polled:
        """What was under way, once it is written."""
        if self._unfinished is None:
            return {}
        writing, polled = self._unfinished
        if (problem := writing.get()) is not None:
            raise problem
        self._unfinished, self._written_at = None, time.monotonic()
        return polled

    def _poll(self) -> _Polled:
        """Wait for events, unless a batch is under way. Those that follow close upon a batch wait for each other: a transaction
        for each would cost so much that a few hundred a second are never done.
        """
        is_under_way = self._unfinished is not None
        polled = self._consumer.poll(timeout_ms=0 if is_under_way else _POLL_MS)
        is_close = is_under_way or time.monotonic() - self._written_at <= _CLOSE_SECONDS
        if not self._is_alone or not is_close:
            return polled
        until = time.monotonic() + _CLOSE_SECONDS
        while polled and (left := until - time.monotonic()) > 0:
            room = inbound_events.MOST - sum(map(len, polled.values()))
            if room <= 0:
                break
            for where, raws in self._consumer.poll(timeout_ms=round(left * 1000), max_records=room).items():
                polled[where] = polled.get(where, []) + raws
        return polled

    def _forward(self) -> None:
        if self._forwarder and self._forward_at is not None and time.monotonic() >= self._forward_at:
            self._forward_at = None  # before it: the batch under way may bring more
            if not self._forwarder.forward():
                self._forward_at = time.monotonic() + _FORWARD_SECONDS

    def _arrivals(self, polled: _Polled, now: datetime) -> list[Arrival]:
        arrivals, breath = [], Breath()
        for decoded in (decoded for partition in polled.values() for decoded in partition):
            reading = decoded.rejected or contract.read(decoded.record, now=now, rules=RULES.of(self._app))
            arrivals.append(Arrival(decoded.record, reading))
            breath.take()
        return arrivals

    def _ingest(self, arrivals: list[Arrival], now: datetime) -> Exception | None:
        """Write a batch; return what went wrong, as what a greenlet raises is printed wherever it ends."""
        began = time.monotonic()
        try:
            with self._app.app_context():
                outcomes = inbound_events.ingest(arrivals, by=self._account, now=now)
        except Exception as problem:
            return problem
        for kind, count in Counter(outcome.kind for outcome in outcomes).items():
            metrics.events.labels("kafka", kind).inc(count)
        if self._forward_at is None and any(outcome.rejected is not None for outcome in outcomes):
            self._forward_at = 0.0
        metrics.kafka_records.inc(len(arrivals))
        metrics.kafka_batch_seconds.observe(time.monotonic() - began)
        return None

    def _commit(self, polled: _Polled) -> None:
        from kafka import OffsetAndMetadata

        offsets = {where: OffsetAndMetadata(records[-1].next_offset) for where, records in polled.items()}
        self._consumer.commit(offsets, timeout_ms=self._settings.kafka_request_timeout_ms)
        self._committed |= {where: records[-1].next_offset for where, records in polled.items()}

    def is_time_to_look(self) -> bool:
        return time.monotonic() >= self._look_at

    def look(self) -> str | None:
        """Measure the lag, and say what is wrong with the link, if anything is."""
        began, self._look_at = self._look_at, time.monotonic() + _LOOK_SECONDS
        for where in self._consumer.assignment():
            self._note_lag(where)
        if began and not self._link.is_open():
            self._forget_lags()
            return self._link.reason or "No link to a broker; it is tried again and again."
        if self._missing:
            return broker_check.missing(self._missing)
        return _RIVAL if time.monotonic() < self._rival_until else None

    def _note_lag(self, where: Any) -> None:
        newest, position = self._consumer.highwater(where), self._consumer.position(where, timeout_ms=100)
        under_way = len(self._unfinished[1].get(where, ())) if self._unfinished else 0
        is_known = newest is not None and position is not None
        metrics.kafka_lag.labels(where.topic, where.partition).set(
            newest - position + under_way if is_known else _UNKNOWN
        )
        self._lags.add((where.topic, where.partition))

    def _forget_lags(self) -> None:
        """Nobody knows how much waits at brokers that do not answer: that is not the same as nothing."""
        for topic, partition in self._lags:
            metrics.kafka_lag.labels(topic, partition).set(_UNKNOWN)

    def close(self) -> None:
        """Let go of the brokers, within a second of the batch under way. The lag is unknown until another worker tells it."""
        if self._unfinished is not None:
            self._unfinished[0].join()
        client.close(self._consumer)
        if self._forwarder:
            self._forwarder.close()
        self._forget_lags()
