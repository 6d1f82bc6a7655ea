"""The interface of every bus, what may fail, and the bus of a worker without Redis."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import gevent

from broadcast.base.app_parts import AppPart


@dataclass(frozen=True, slots=True)
class Listener:
    """A worker's callbacks. Each is called from the bus's own greenlet and must not raise.

    `on_notify()`: the log may have grown. `on_signal(name, body)`: a fact that needs no durability. `on_connected()`:
    the listener has just (re)connected and may have missed notifications, so read the log.
    """

    on_notify: Callable[[], None]
    on_signal: Callable[[str, dict], None]
    on_connected: Callable[[], None]


class Bus(Protocol):
    """Notifications reach every worker, including the sender, but may be lost or repeated. Polling is the retry.

    `notify` and `send_signal` return within 0.3 s and never raise, whatever the server does. `listen` runs until its
    greenlet is killed, and reconnects on its own. `is_healthy` is False while this worker is not connected.
    `silent_seconds` is the time since it last received anything, including the answer to a ping.
    """

    @property
    def is_healthy(self) -> bool: ...

    @property
    def silent_seconds(self) -> float: ...

    def notify(self) -> None: ...

    def send_signal(self, name: str, body: dict) -> None: ...

    def listen(self, listener: Listener) -> None: ...


class LocalBus:
    """Notifies only this worker; the others find new events by polling."""

    is_healthy = True
    silent_seconds = 0.0

    def __init__(self) -> None:
        self._listener: Listener | None = None

    def notify(self) -> None:
        if self._listener:
            self._listener.on_notify()

    def send_signal(self, name: str, body: dict) -> None:
        if self._listener:
            self._listener.on_signal(name, body)

    def listen(self, listener: Listener) -> None:
        self._listener = listener
        listener.on_connected()
        while True:
            gevent.sleep(3600)


BUS = AppPart[Bus]("bus")
