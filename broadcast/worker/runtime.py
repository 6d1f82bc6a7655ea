"""A worker's background loops: started once the worker is ready, each restarted with a growing pause after a failure.

    tail        the log → the hub
    bus         notifications and signals
    clock       the scheduler
    heartbeat   keeps streams alive, ends old ones
    notes       delivered and seen receipts, last use of sessions → the database, in batches
    receipts    receipts from elsewhere that no signal announced → the user's streams
    presence    users online here → Redis
    retention   deletes what ended long ago
    gauges      current values → /metrics
    escalation  who has not seen a broadcast → the outbox
    outbox …    the outbox → the servers of one channel, such as the mail server; a loop for each channel
    corrections recalled broadcasts → the outbox, for whom a channel had told
    digests     what is unread → the mail server, to who wants digests
    webhooks    the log → the endpoints of webhooks
    kafka       inbound events → broadcasts, if there are brokers

A loop survives a bad item. Its last failure is in `problems`, and so in `/readyz`, until it succeeds again.
"""

import contextvars
import gc
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import gevent
import structlog
from flask import Flask
from gevent.event import Event as GeventEvent

from broadcast.actions import overdue_schedules, retention
from broadcast.actions.notify import SCHEDULER_WAKEUP
from broadcast.base import correlation
from broadcast.base.app_parts import AppPart
from broadcast.base.errors import BroadcastError, TemporarilyUnavailable
from broadcast.bus.protocol import Bus, Listener
from broadcast.bus.redis_client import CONNECTION_ERRORS, REDIS, describe_failure
from broadcast.channels import corrections, escalation, outgoing_http
from broadcast.channels.corrections import CorrectionOutbox
from broadcast.channels.digest import DigestSender
from broadcast.channels.email import EMAIL, EmailChannel
from broadcast.channels.outbox import Outbox
from broadcast.channels.registry import CHANNELS
from broadcast.channels.webhooks import WEBHOOKS
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.ingest.kafka.bridge import KafkaBridge
from broadcast.observability import metrics
from broadcast.store import database, log
from broadcast.store.availability import is_driver_unavailable
from broadcast.store.fast.last_used_buffer import LAST_USED_BUFFER
from broadcast.streams.hub import Hub
from broadcast.streams.presence import Presence
from broadcast.streams.receipt_buffer import ReceiptBuffer
from broadcast.streams.receipt_sync import ReceiptSync
from broadcast.streams.socket_transport import SocketTransport
from broadcast.streams.tailer import Tailer
from broadcast.worker import gauges, readiness
from broadcast.worker.keepalive import KeepAlive
from broadcast.worker.known_head import HighWaterMark
from broadcast.worker.scheduler import tick
from broadcast.worker.stream_worker import DirectStreams

_log = structlog.get_logger(__name__)

_SCHEDULER_POLL_SECONDS = 5.0  # a signal wakes the scheduler earlier; this is for a lost signal
_SCHEDULER_POLL_WITHOUT_BUS_SECONDS = 1.0  # while the bus is away, and no signal can come
_FLUSH_INTERVAL_SECONDS = 1.0
_PRESENCE_INTERVAL_SECONDS = 0.5
_RECEIPT_SYNC_INTERVAL_SECONDS = 1.0
_RETENTION_INTERVAL_SECONDS = 3600.0
_CHANNEL_INTERVAL_SECONDS = 1.0
_FIRST_READ_TIMEOUT_SECONDS = 10.0  # do not wait longer for a database that does not answer
_HANDOVER_TIMEOUT_SECONDS = 60.0  # workers that need longer to start never will
_DRAIN_SECONDS = 2.0  # well within gunicorn's graceful_timeout


class Runtime:
    """The loops of one worker."""

    def __init__(
        self, app: Flask, hub: Hub, bus: Bus, receipt_buffer: ReceiptBuffer, presence: Presence, *, poll_seconds: float
    ):
        self.app, self.hub, self.bus, self.receipt_buffer, self.presence = app, hub, bus, receipt_buffer, presence
        self.tailer = Tailer(app, hub, poll_seconds=poll_seconds, begin_epoch=self._begin_epoch)
        self.high_water_mark = HighWaterMark(SETTINGS.of(app).data_dir, REDIS.of(app))
        self.bridge: KafkaBridge | None = None  # None without brokers
        self.receipt_sync = ReceiptSync(app, hub)
        self.outboxes = _build_outboxes(app)
        self.digest_sender = DigestSender(EMAIL.of(app), max_per_minute=SETTINGS.of(app).email_per_minute)
        self.webhooks = WEBHOOKS.of(app)
        self.problems: dict[str, str] = {}
        self.socket_transport: SocketTransport | None = None
        self.direct_streams: DirectStreams | None = None  # None: every stream opens through WSGI
        self.scheduler_wakeup = SCHEDULER_WAKEUP.attach(app, GeventEvent())
        self.first_read_attempted = GeventEvent()  # set after the first read of the log, successful or not
        self._greenlets: list[gevent.Greenlet] = []

    @property
    def is_started(self) -> bool:
        return self.hub.head is not None

    def start(self, *, should_adopt_sockets: bool) -> None:
        """Start all loops and return at once. `should_adopt_sockets`: take over sockets that the server releases."""
        if should_adopt_sockets:
            self.socket_transport = SocketTransport(self.hub)
        loops: dict[str, Callable[[], Any]] = {
            "tail": self._run_tailer,
            "bus": self._run_bus,
            "clock": self._run_scheduler,
            "presence": self._run_presence,
            "retention": self._run_retention,
        }
        for name, interval_seconds, work in (
            ("heartbeat", self.hub.heartbeat_slot_seconds, self.hub.send_heartbeats),
            ("notes", _FLUSH_INTERVAL_SECONDS, self._flush_buffers),
            ("receipts", _RECEIPT_SYNC_INTERVAL_SECONDS, lambda: self.receipt_sync.send_missed(clock.now())),
            ("gauges", gauges.INTERVAL_SECONDS, lambda: gauges.update_all(self.hub, self.bus)),
            ("escalation", _CHANNEL_INTERVAL_SECONDS, self._run_escalation),
            ("corrections", _CHANNEL_INTERVAL_SECONDS, lambda: corrections.plan_all(now=clock.now())),
            ("webhooks", _CHANNEL_INTERVAL_SECONDS, lambda: self.webhooks.run_once()),
        ):
            loops[name] = partial(self._repeat, name, interval_seconds, work)
        loops["digests"] = partial(self._repeat, "digests", _CHANNEL_INTERVAL_SECONDS, self.digest_sender.run_once)
        for outbox in self.outboxes:
            name = f"outbox {outbox.queue}"
            loops[name] = partial(self._repeat, name, _CHANNEL_INTERVAL_SECONDS, outbox.run_once)
        if self.bridge:
            loops["kafka"] = self.bridge.run
        gevent.get_hub().threadpool.spawn(EMAIL.of(self.app).compile_templates)
        for name, loop in loops.items():
            context = contextvars.copy_context()  # gevent.spawn does not inherit it, and the logger binds there
            self._greenlets.append(gevent.spawn(context.run, self._supervise, name, loop))

    def stop(self, *, drain_seconds: float = _DRAIN_SECONDS) -> None:
        """Notify every client that the worker ends, flush the buffers, stop the loops."""
        self.stop_bridge()
        for sender in (*self.outboxes, self.digest_sender, self.webhooks):
            sender.is_stopping = True
        self.hub.drain(drain_seconds)
        with suppress(gevent.Timeout):  # a greenlet inside a transaction ends after it
            gevent.killall(self._greenlets, timeout=1)
        self.presence.remove_worker()
        try:
            with self.app.app_context():
                self._flush_buffers()
        except Exception as problem:
            _log.warning("notes.lost", problem=str(problem))

    def stop_bridge(self) -> None:
        """Let another worker read from Kafka now, while this one still ends its streams."""
        if self.bridge:
            self.bridge.stop()

    def _supervise(self, name: str, loop: Callable[[], Any]) -> None:
        pause_seconds = 0.1
        while True:
            started_at = time.monotonic()
            try:
                loop()
            except gevent.GreenletExit:
                return
            except Exception as problem:
                pause_seconds = 0.1 if time.monotonic() - started_at > 10 else min(pause_seconds * 2, 3.0)
                metrics.loop_failures.labels(name).inc()
                if name == "tail":
                    self.first_read_attempted.set()
                self.problems[name] = describe_loop_failure(problem)
                description = f"{type(problem).__name__}: {problem}"[:300]
                _log.error("loop.failed", loop=name, problem=description, again_in_seconds=round(pause_seconds, 1))
            gevent.sleep(pause_seconds * random.uniform(0.7, 1))

    def _repeat(self, name: str, interval_seconds: float, work: Callable[[], None]) -> None:
        while True:
            with self.app.app_context():
                work()
            self.problems.pop(name, None)
            gevent.sleep(interval_seconds)

    def _run_tailer(self) -> None:
        if not self.is_started:
            self.tailer.start()
        self.tailer.catch_up()
        self.problems.pop("tail", None)
        self.first_read_attempted.set()
        self.tailer.run()

    def _begin_epoch(self, lost_epoch: str) -> None:
        if overdue_schedules.start_epoch_after_loss(lost_epoch, now=clock.now()):
            metrics.log_epochs.inc()

    def _run_bus(self) -> None:
        def on_connected() -> None:
            self.problems.pop("bus", None)
            self.tailer.notify()

        self.bus.listen(Listener(self.tailer.notify, self._on_signal, on_connected))

    def _on_signal(self, name: str, body: dict) -> None:
        match name, body:
            case "receipt", {"user": int(user_id), "kind": str(kind), "ids": list(ids), "version": int(version)}:
                self.receipt_sync.handle_signal(user_id, kind, ids, version)
            case "due", _:
                self.scheduler_wakeup.set()
            case "disconnect", {"user": int(user_id), "connection": str(connection_id)}:
                connection = self.hub.find(connection_id)
                if connection is not None and connection.viewer.user_id == user_id:
                    self.hub.close(connection, "disconnected")
            case _:
                _log.warning("signal.unknown", name=name)

    def _run_scheduler(self) -> None:
        correlation.set_current_id("the-clock")
        while True:
            self.scheduler_wakeup.clear()
            with self.app.app_context():
                now = clock.synchronize(database.get_current_time)
                next_at = self.run_scheduler_once(now)
            self.problems.pop("clock", None)
            wait_seconds = _SCHEDULER_POLL_SECONDS if self.bus.is_healthy else _SCHEDULER_POLL_WITHOUT_BUS_SECONDS
            if next_at is not None:
                wait_seconds = min(wait_seconds, max(0.01, (next_at - now).total_seconds()))
            self.scheduler_wakeup.wait(wait_seconds)

    def run_scheduler_once(self, now: datetime) -> datetime | None:
        """One run of the scheduler, if the database is the newest known one; return when the next is due."""
        if (epoch := self._find_rolled_back_epoch()) is not None:
            _log.error("database.set_back", epoch=epoch)
            self._begin_epoch(epoch)
        grace = timedelta(minutes=SETTINGS.of(self.app).schedule_grace_minutes)
        next_at = tick(now, grace=grace)
        self.high_water_mark.record(log.get_head())
        return next_at

    def _find_rolled_back_epoch(self) -> str | None:
        """The epoch of the log, if the log ends before its known head, which was committed. Reads the log once more, as
        it may have grown meanwhile.
        """
        known_head = log.get_head()
        newest_seq = self.high_water_mark.get_seq(known_head.epoch)
        if newest_seq <= known_head.seq:
            return None
        fresh_head = log.get_head(should_refresh=True)
        return known_head.epoch if fresh_head.epoch == known_head.epoch and fresh_head.seq < newest_seq else None

    def _run_presence(self) -> None:
        renew_at = 0.0
        while True:
            if time.monotonic() >= renew_at:
                self.presence.renew_lease()
                renew_at = time.monotonic() + self.hub.limits.heartbeat_seconds
            self.presence.write_changes()
            self.problems.pop("presence", None)
            gevent.sleep(_PRESENCE_INTERVAL_SECONDS)

    def _run_retention(self) -> None:
        while True:
            if "retention" not in self.problems:  # a failure is retried now, not in an hour
                gevent.sleep(_RETENTION_INTERVAL_SECONDS * random.uniform(0.5, 1.5))  # not all workers at once
            with self.app.app_context():
                retention.delete_expired(
                    retention.RetentionPolicy.from_settings(SETTINGS.of(self.app)), now=database.get_current_time()
                )
            self.problems.pop("retention", None)

    def _run_escalation(self) -> None:
        escalation.run_once(now=clock.now(), get_online_ids=self.presence.get_online_ids)

    def _flush_buffers(self) -> None:
        self.receipt_buffer.flush(clock.now(), fanout_idle=self.hub.fanout_idle)
        LAST_USED_BUFFER.of(self.app).flush(clock.now())


def _build_outboxes(app: Flask) -> list[Outbox]:
    limits = {EmailChannel.name: SETTINGS.of(app).email_per_minute}
    channels = CHANNELS.of(app).items()
    outboxes = [Outbox(channel, max_per_minute=limits.get(name, 0)) for name, channel in channels]
    return outboxes + [CorrectionOutbox(channel, max_per_minute=limits.get(name, 0)) for name, channel in channels]


def describe_loop_failure(problem: Exception) -> str:
    """Why a loop failed, as a sentence for the console. The log has the original error."""
    match problem:
        case TemporarilyUnavailable():
            return "The database is locked or unavailable."
        case BroadcastError():
            return str(problem)
        case OSError():
            return f"{problem.strerror or 'A connection failed'}."
    if isinstance(problem, CONNECTION_ERRORS):
        return f"Redis {describe_failure(problem)}."
    if is_driver_unavailable(problem):
        return "The database is locked or unavailable."
    return "An unexpected error. The log has it under loop.failed."


def start_worker(worker: Any) -> None:
    """gunicorn's `post_worker_init`, in a patched process with the application loaded. Returns after the first read of
    the log, successful or not; `/readyz` reports a failure.
    """
    app: Flask = worker.wsgi
    runtime = RUNTIME.of(app)
    outgoing_http.load_certificates()
    # elsewhere there is no epoll, and streams are generators
    runtime.start(should_adopt_sockets=sys.platform == "linux")
    keepalive = KeepAlive(worker.cfg.keepalive)
    worker.timeout_ctx = keepalive.idle_timeout
    worker.direct_streams = runtime.socket_transport and runtime.direct_streams
    gevent.spawn(_drain_on_shutdown, worker, runtime, keepalive)
    signal.signal(signal.SIGTERM, lambda *_: gevent.spawn(_exit_after_handover, worker))
    freeze_gc()
    metrics.preallocate_files()
    runtime.first_read_attempted.wait(_FIRST_READ_TIMEOUT_SECONDS)
    readiness.start_serving(worker)


def _exit_after_handover(worker: Any) -> None:
    """Exit when told to, but at a reload not before the successors serve. gunicorn repeats the signal every second."""
    deadline = time.monotonic() + _HANDOVER_TIMEOUT_SECONDS
    while worker.alive and not readiness.may_exit(worker) and time.monotonic() < deadline:
        gevent.sleep(0.05)
    worker.alive = False


def freeze_gc() -> None:
    """Exclude all objects loaded so far from garbage collection: they are never garbage, and scanning 150,000 of them
    took 70 ms, in which the worker served no stream.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


def stop_worker(worker: Any) -> None:
    """gunicorn's `worker_exit`: adopted sockets are outside its pool, so they are drained here."""
    app: Flask | None = getattr(worker, "wsgi", None)
    if app is None:  # it failed to start, and has logged why
        return
    RUNTIME.of(app).stop()
    gc.freeze()  # the interpreter's last collections scan every object, for seconds on a busy processor


def _drain_on_shutdown(worker: Any, runtime: Runtime, keepalive: KeepAlive) -> None:
    """End what gunicorn would wait for when the worker is told to exit (TERM, HUP, max_requests): streams that are
    generators, and idle connections. These get the drain time to send what they were about to.
    """
    while worker.alive:
        gevent.sleep(0.2)
    runtime.stop_bridge()
    runtime.hub.drain(_DRAIN_SECONDS)
    keepalive.close_idle()


RUNTIME = AppPart[Runtime]("runtime")
