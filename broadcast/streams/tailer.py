"""The only path from the log to this worker's streams: read new events and hand them to the hub, in order.

Woken by the bus, by every (re)connection of the bus, and by its own timeout at least once a second; a lost notification
therefore costs time, never a message. The worker that published takes the same path.
"""

from collections.abc import Callable
from datetime import datetime

import structlog
from flask import Flask
from gevent.event import Event as GeventEvent

from broadcast.domain import clock
from broadcast.domain.events import Cursor, Event
from broadcast.observability import metrics
from broadcast.store import engine, log
from broadcast.store.fast.credential_cache import CREDENTIAL_CACHE
from broadcast.store.live_broadcasts import LIVE_BROADCASTS
from broadcast.streams.hub import Hub

_log = structlog.get_logger(__name__)
_MAX_LOGGED_EVENTS = 20  # of one read, one line each; more of them get one line together
_WARMUP_EVENTS = 2000  # read back at start, so that clients of the previous worker can resume from memory


class Tailer:
    """Reads for one hub, from one greenlet. `on_event_logged` is called for each delivered event that is logged."""

    def __init__(self, app: Flask, hub: Hub, *, poll_seconds: float, begin_epoch: Callable[[str], None]):
        self._app, self._hub, self._poll_seconds, self._begin_epoch = app, hub, poll_seconds, begin_epoch
        self._last_delivered: Event | None = None
        self._checked_connection_count = 0  # `count_connections_made` at the last check against the log
        self._wakeup = GeventEvent()
        self.on_event_logged: Callable[[Event, datetime], None] | None = None

    def notify(self) -> None:
        """Say that the log may have grown. Never blocks."""
        self._wakeup.set()

    def start(self) -> None:
        """Give the hub its first head and the newest events for its replay buffer. Raises if the database is down."""
        with self._app.app_context():
            head = log.get_head()
            LIVE_BROADCASTS.current.catch_up(head)
            recent: list[Event] = []
            after = max(0, head.seq - _WARMUP_EVENTS)
            while page := log.read_events(after, through=head.seq):
                recent += page
                after = page[-1].seq
        recent = [event for event in recent if event.epoch == head.epoch]
        self._last_delivered = recent[-1] if recent else None
        self._hub.start(head, recent)

    def run(self) -> None:
        """Read forever. Raises database errors; call again to continue where it stopped."""
        while True:
            self._wakeup.wait(self._poll_seconds)
            self._wakeup.clear()
            self.catch_up()

    def catch_up(self) -> None:
        """Deliver everything committed so far. Lets other greenlets run."""
        while events := self._read_new_events():
            self._hub.deliver(events)
            self._last_delivered = events[-1]
            self._report_delivered(events)

    def _read_new_events(self) -> list[Event]:
        with self._app.app_context():  # leaving it releases the connection before anything is delivered
            head = log.get_head()
            hub_head = self._hub.head
            if head.epoch == hub_head.epoch and not self._is_log_intact(head):
                _log.error("log.history_lost", ours=str(hub_head), found=str(head))
                self._begin_epoch(hub_head.epoch)
                head = log.get_head()
            if head.epoch != hub_head.epoch:
                _log.warning("tail.new_epoch", ours=str(hub_head), found=str(head))
                CREDENTIAL_CACHE.current.clear()
                self._hub.start(head)
                self._last_delivered = None
                self._hub.reset_all_streams()
                return []
            return log.read_events(hub_head.seq) if head.seq > hub_head.seq else []

    def _is_log_intact(self, head: Cursor) -> bool:
        """Whether the log still contains what was delivered. After a restore, or a failover to a standby that was
        behind, it does not: its head is behind ours, or other events have our numbers. The latter is checked after
        every new connection.
        """
        if head.seq < self._hub.head.seq:
            return False
        connection_count = engine.count_connections_made()
        if connection_count == self._checked_connection_count or self._last_delivered is None:
            return True
        self._checked_connection_count = connection_count
        return log.has_event(self._last_delivered)

    def _report_delivered(self, events: list[Event]) -> None:
        """Log and measure what was delivered, with correlation id and latency."""
        now = clock.now()
        for event in events:
            if event.is_for_clients:
                metrics.delivery_seconds.observe(max(0.0, (now - event.at).total_seconds()))
        if len(events) > _MAX_LOGGED_EVENTS:
            _log.info("events.delivered", first=events[0].seq, last=events[-1].seq)
            return
        for event in events:
            latency_ms = round(1000 * (now - event.at).total_seconds(), 1)
            _log.info(
                "event.delivered",
                seq=event.seq,
                type=event.type.value,
                broadcast=event.broadcast_id,
                correlation=event.correlation_id,
                ms=latency_ms,
            )
            if self.on_event_logged:
                self.on_event_logged(event, now)
