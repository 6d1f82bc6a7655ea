"""One worker's background loops: started once the worker is ready, each restarted with a growing pause when it fails.

    listen      the bus: rings and signals
    tail        the log → the hub
    clock       what is due, what is over
    heartbeat   keeps streams alive, ends old ones
    notes       who was shown what, which sessions were used → the database, in batches
    receipts    what people did elsewhere and no signal told → their streams
    presence    who is online here → Redis
    retention   what ended long ago is forgotten
    gauges      figures of the moment → /metrics
    kafka       events from outside → broadcasts, if there are brokers

A loop never dies of one bad item; what it failed on last is in `problems`, and so in `/readyz`, until it has done its work
once more: every loop says so by `_is_well`.
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
from typing import Any

import gevent
import structlog
from flask import Flask
from gevent.event import Event as Bell

from broadcast.actions import log_epochs as epochs
from broadcast.actions import retention
from broadcast.actions.notify import SCHEDULER_WAKEUP
from broadcast.base import correlation
from broadcast.base.app_parts import AppPart
from broadcast.bus.protocol import Bus, Listener
from broadcast.bus.redis_client import REDIS
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.ingest.kafka.bridge import Bridge
from broadcast.maintenance import loop_failure
from broadcast.observability import metrics
from broadcast.store import database, log
from broadcast.store.fast.last_used_buffer import LAST_USED_BUFFER
from broadcast.streams.hub import Hub
from broadcast.streams.presence import Presence
from broadcast.streams.receipt_buffer import Deliveries
from broadcast.streams.receipt_sync import Follow
from broadcast.streams.socket_transport import Sockets
from broadcast.streams.tailer import Tail
from broadcast.worker import gauges, readiness
from broadcast.worker.keepalive import KeepAlive
from broadcast.worker.known_head import HeadMemory
from broadcast.worker.scheduler import tick

_log = structlog.get_logger(__name__)

_CLOCK_SECONDS = 5.0  # without anything due; a signal wakes the clock earlier, this is for a signal that got lost
_CLOCK_DEAF_SECONDS = 1.0  # the same while the bus is away, and no signal can come
_FLUSH_SECONDS = 1.0
_PRESENT_SECONDS = 0.5
_FOLLOW_SECONDS = 1.0
_FORGET_SECONDS = 3600.0
_FIRST_READ_SECONDS = 10.0  # a database that does not answer by then may take long
_SUCCESSION_SECONDS = 60.0  # workers that take longer to start never will
_DRAIN_SECONDS = 2.0  # well within gunicorn's graceful_timeout


class Runtime:
    """The loops of one worker."""

    def __init__(
        self, app: Flask, hub: Hub, bus: Bus, deliveries: Deliveries, presence: Presence, *, poll_seconds: float
    ):
        self.app, self.hub, self.bus, self.deliveries, self.presence = app, hub, bus, deliveries, presence
        self.tail = Tail(app, hub, poll_seconds=poll_seconds, begin_epoch=self._begin_epoch)
        self.head_memory = HeadMemory(SETTINGS.of(app).data_dir, REDIS.of(app))
        self.bridge: Bridge | None = None  # where there are brokers
        self.follow = Follow(app, hub)
        self.problems: dict[str, str] = {}
        self.sockets: Sockets | None = None
        self.clock_bell = SCHEDULER_WAKEUP.attach(app, Bell())
        self.tail_tried = Bell()  # set when the log has been read for the first time, or could not be
        self._greenlets: list[gevent.Greenlet] = []

    @property
    def is_started(self) -> bool:
        return self.hub.head is not None

    def start(self, *, sockets: bool) -> None:
        """Start all loops and return at once. `sockets`: take sockets over from a server that lets go of them."""
        if sockets:
            self.sockets = Sockets(self.hub)
        for name, loop in (
            ("tail", self._tail),
            ("bus", self._listen),
            ("clock", self._clock),
            ("heartbeat", self._heartbeat),
            ("notes", self._flush),
            ("receipts", self._follow),
            ("presence", self._present),
            ("gauges", self._measure),
            ("retention", self._forget),
            *([("kafka", self.bridge.run)] if self.bridge else ()),
        ):
            context = contextvars.copy_context()  # gevent.spawn does not inherit it, and the logger binds there
            self._greenlets.append(gevent.spawn(context.run, self._supervise, name, loop))

    def stop(self, *, drain_seconds: float = _DRAIN_SECONDS) -> None:
        """Tell every client that the worker ends, write what waits, stop the loops."""
        self.leave_bridge()
        self.hub.drain(drain_seconds)
        with suppress(gevent.Timeout):  # whoever is at a transaction ends with it
            gevent.killall(self._greenlets, timeout=1)
        self.presence.leave()
        try:
            with self.app.app_context():
                self._write_down()
        except Exception as problem:
            _log.warning("notes.lost", problem=str(problem))

    def leave_bridge(self) -> None:
        """Let another worker read from Kafka now, while the streams of this one are still being ended."""
        if self.bridge:
            self.bridge.stop()

    def _supervise(self, name: str, loop: Callable[[], Any]) -> None:
        pause = 0.1
        while True:
            started = time.monotonic()
            try:
                loop()
            except gevent.GreenletExit:
                return
            except Exception as problem:
                pause = 0.1 if time.monotonic() - started > 10 else min(pause * 2, 3.0)
                metrics.loop_failures.labels(name).inc()
                if name == "tail":
                    self.tail_tried.set()
                self.problems[name] = loop_failure.describe(problem)
                words = f"{type(problem).__name__}: {problem}"[:300]
                _log.error("loop.failed", loop=name, problem=words, again_in_seconds=round(pause, 1))
            gevent.sleep(pause * random.uniform(0.7, 1))

    def _is_well(self, name: str) -> None:
        """This loop did its work: whatever it failed on before is over."""
        self.problems.pop(name, None)

    def _tail(self) -> None:
        if not self.is_started:
            self.tail.start()
        self.tail.catch_up()
        self._is_well("tail")
        self.tail_tried.set()
        self.tail.run()

    def _begin_epoch(self, lost: str) -> None:
        if epochs.begin_after_loss(lost, now=clock.now()):
            metrics.log_epochs.inc()

    def _listen(self) -> None:
        def connected() -> None:
            self._is_well("bus")
            self.tail.ring()

        self.bus.listen(Listener(self.tail.ring, self._on_signal, connected))

    def _on_signal(self, name: str, body: dict) -> None:
        match name, body:
            case "receipt", {"user": int(user_id), "kind": str(kind), "ids": list(ids), "version": int(version)}:
                self.follow.hear(user_id, kind, ids, version)
            case "due", _:
                self.clock_bell.set()
            case "disconnect", {"user": int(user_id), "connection": str(connection_id)}:
                connection = self.hub.find(connection_id)
                if connection is not None and connection.viewer.user_id == user_id:
                    self.hub.close(connection, "disconnected")
            case _:
                _log.warning("signal.unknown", name=name)

    def _follow(self) -> None:
        while True:
            self.follow.look(clock.now())
            self._is_well("receipts")
            gevent.sleep(_FOLLOW_SECONDS)

    def _clock(self) -> None:
        correlation.begin("the-clock")
        while True:
            self.clock_bell.clear()
            with self.app.app_context():
                now = clock.follow(database.now)
                next_at = self.turn_clock(now)
            self._is_well("clock")
            wait = _CLOCK_SECONDS if self.bus.healthy else _CLOCK_DEAF_SECONDS
            if next_at is not None:
                wait = min(wait, max(0.01, (next_at - now).total_seconds()))
            self.clock_bell.wait(wait)

    def turn_clock(self, now: datetime) -> datetime | None:
        """One turn of the scheduler, in a database that is the newest this system has seen; return when the next is due."""
        if (epoch := self._set_back_in()) is not None:
            _log.error("database.set_back", epoch=epoch)
            self._begin_epoch(epoch)
        grace = timedelta(minutes=SETTINGS.of(self.app).plan_grace_minutes)
        next_at = tick(now, grace=grace)
        self.head_memory.note(log.head())
        return next_at

    def _set_back_in(self) -> str | None:
        """The epoch of the log, when it ends before what is remembered of it. What is remembered was committed, so the log is
        read once more: it may have grown while the memory was asked.
        """
        found = log.head()
        newest = self.head_memory.newest(found.epoch)
        if newest <= found.seq:
            return None
        head = log.head(anew=True)
        return found.epoch if head.epoch == found.epoch and head.seq < newest else None

    def _heartbeat(self) -> None:
        while True:
            gevent.sleep(self.hub.beat_seconds)
            self.hub.beat()
            self._is_well("heartbeat")

    def _present(self) -> None:
        renew_at = 0.0
        while True:
            if time.monotonic() >= renew_at:
                self.presence.renew()
                renew_at = time.monotonic() + self.hub.limits.heartbeat_seconds
            self.presence.write_changes()
            self._is_well("presence")
            gevent.sleep(_PRESENT_SECONDS)

    def _measure(self) -> None:
        while True:
            with self.app.app_context():
                gauges.measure(self.hub, self.bus)
            self._is_well("gauges")
            gevent.sleep(gauges.SECONDS)

    def _forget(self) -> None:
        while True:
            if "retention" not in self.problems:  # what failed is tried again now, and not in an hour
                gevent.sleep(_FORGET_SECONDS * random.uniform(0.5, 1.5))  # not all workers at once
            with self.app.app_context():
                retention.run(retention.RetentionPolicy.from_settings(SETTINGS.of(self.app)), now=database.now())
            self._is_well("retention")

    def _flush(self) -> None:
        while True:
            gevent.sleep(_FLUSH_SECONDS)
            with self.app.app_context():
                self._write_down()
            self._is_well("notes")

    def _write_down(self) -> None:
        self.deliveries.flush(clock.now(), calm=self.hub.calm)
        LAST_USED_BUFFER.of(self.app).flush(clock.now())


def start_worker(worker: Any) -> None:
    """gunicorn's `post_worker_init`: the process is patched and the application loaded. Returns when the log was read, or when
    that failed: then `/readyz` says why.
    """
    app: Flask = worker.wsgi
    runtime = RUNTIME.of(app)
    runtime.start(sockets=sys.platform == "linux")  # elsewhere there is no epoll, and streams are generators
    keepalive = KeepAlive(worker.cfg.keepalive)
    worker.timeout_ctx = keepalive.wait
    gevent.spawn(_watch, worker, runtime, keepalive)
    signal.signal(signal.SIGTERM, lambda *_: gevent.spawn(_leave, worker))
    settle()
    metrics.reserve()
    runtime.tail_tried.wait(_FIRST_READ_SECONDS)
    readiness.serve(worker)


def _leave(worker: Any) -> None:
    """End when told to, but at a reload not before the workers that follow serve. gunicorn says it again every second."""
    deadline = time.monotonic() + _SUCCESSION_SECONDS
    while worker.alive and not readiness.may_leave(worker) and time.monotonic() < deadline:
        gevent.sleep(0.05)
    worker.alive = False


def settle() -> None:
    """Have the garbage collector leave alone what was loaded by now: it is never garbage, and going through its 150,000 objects
    took 70 ms, in which no stream of the worker was served.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


def stop_worker(worker: Any) -> None:
    """gunicorn's `worker_exit`: handed-over sockets are outside its pool, so they are drained here."""
    app: Flask | None = getattr(worker, "wsgi", None)
    if app is None:  # it failed to start, and has said why
        return
    RUNTIME.of(app).stop()
    gc.freeze()  # the interpreter's last collections look at every object, for seconds of a busy processor


def _watch(worker: Any, runtime: Runtime, keepalive: KeepAlive) -> None:
    """End what gunicorn would wait for when the worker is told to go (TERM, HUP, max_requests): streams that are
    generators, and idle connections, which are given the time of the drain to send what they were about to.
    """
    while worker.alive:
        gevent.sleep(0.2)
    runtime.leave_bridge()
    runtime.hub.drain(_DRAIN_SECONDS)
    keepalive.end()


RUNTIME = AppPart[Runtime]("runtime")
