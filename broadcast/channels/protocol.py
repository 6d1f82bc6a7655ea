"""What a channel is: something that takes one broadcast for one address of a user, and says what became of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from sqlalchemy.orm import Session

from broadcast.domain.card import Card
from broadcast.domain.preferences import Preferences
from broadcast.store.audiences import UserCondition

A = TypeVar("A")  # what a channel calls an address: an e-mail address, the subscription of a browser


@dataclass(frozen=True, slots=True)
class Message(Generic[A]):
    """`id` is the same at every attempt to send the broadcast to this user, so that the receiver can discard repetitions."""

    id: str
    card: Card
    user_id: int
    name: str
    address: A


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


def is_server_down(outcome: Outcome) -> bool:
    return isinstance(outcome, Retry) and outcome.is_server_down


class Channel(Protocol[A]):
    """One way to reach users, whose addresses are of type A. `registry` makes them all.

    `name` is stored with deliveries and has at most 16 characters; `label` is what pages call it.
    """

    name: str
    label: str

    def has_address(self) -> UserCondition:
        """The condition that a User has an address that works; evaluated for each user of an audience."""

    def load_addresses(self, user_ids: Collection[int]) -> Mapping[int, Sequence[A]]:
        """The working addresses of these users, by user id; those without any may be missing."""

    def is_wanted(
        self, preferences: Preferences, *, priority: str, category: str | None, mandatory: Collection[str]
    ) -> bool:
        """Whether a user wants such a message by this channel. `mandatory` are categories that nobody can mute."""

    def disable_address(self, session: Session, user_id: int, address: A, reason: str, *, at: datetime) -> None:
        """What follows `Gone`: nothing is sent to this address any more."""

    def send(self, message: Message[A]) -> Outcome:
        """Send to one address. May block its greenlet for up to TIMEOUT_SECONDS; needs no application context."""

    def send_correction(self, message: Message[A]) -> Outcome:
        """The same, to say that a broadcast that was sent to this address has been recalled."""

    def send_test(self, address: A, name: str) -> Outcome:
        """Send something that only shows that the channel works, to whoever asks on the page Channels."""


TIMEOUT_SECONDS = 60.0
