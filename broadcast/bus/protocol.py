"""What every bus does, and what it may fail at."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from broadcast.base.app_parts import AppPart


@dataclass(frozen=True, slots=True)
class Listener:
    """What a worker does when the bell rings. Each is called from the bus's own greenlet and must not raise.

    `on_notify()`: the log may have grown. `on_signal(name, body)`: a fact that needs no durability. `on_connected()`: the
    listener was deaf until now; whatever was rung before is unknown, so read the log.
    """

    on_notify: Callable[[], None]
    on_signal: Callable[[str, dict], None]
    on_connected: Callable[[], None]


class Bus(Protocol):
    """Rings reach every worker, the sender's own included, and perhaps never, or twice: the poll is the retry.

    `notify` and `signal` return within 0.3 s and never raise, whatever the server does. `listen` runs until the
    greenlet is killed and reconnects by itself. `is_healthy` is False while this worker hears nothing.
    `silent_seconds` says for how long it has heard nothing, not even the answer to a ping.
    """

    @property
    def is_healthy(self) -> bool: ...

    @property
    def silent_seconds(self) -> float: ...

    def notify(self) -> None: ...

    def send_signal(self, name: str, body: dict) -> None: ...

    def listen(self, listener: Listener) -> None: ...


BUS = AppPart[Bus]("bus")
