"""The bus of a worker without Redis: it notifies only this worker; the others find new events by polling."""

import gevent

from broadcast.bus.protocol import Listener


class LocalBus:
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
