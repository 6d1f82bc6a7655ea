"""What a channel is: something that takes one broadcast for one user, and says what became of it."""

from dataclasses import dataclass
from typing import Protocol

from broadcast.domain.card import Card


@dataclass(frozen=True, slots=True)
class Message:
    """`id` is the same at every attempt to send the broadcast to this user, so that the receiver can discard repetitions."""

    id: str
    card: Card
    user_id: int
    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server took it. It may still be lost behind that server."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again, after some seconds if the server named them. `is_server_down`: nothing else would get through either."""

    reason: str
    after_seconds: float | None = None
    is_server_down: bool = False


@dataclass(frozen=True, slots=True)
class Gone:
    """The address takes nothing, and will not."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """This message is not taken, and will not be."""

    reason: str


Outcome = Accepted | Retry | Gone | Refused


class Channel(Protocol):
    """`send` may block its greenlet for up to TIMEOUT_SECONDS, needs no application context, and does not raise."""

    name: str

    def send(self, message: Message) -> Outcome: ...


TIMEOUT_SECONDS = 60.0
