"""How much effort sending takes: it grows with how many people are reached, and how loudly.

It is asked of people, whatever they send with: a form, a page's script, the JSON interface with their session. A program with a
token is not asked.
"""

from dataclasses import dataclass, field

from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Draft, Priority, TargetType

TICK_PEOPLE = 50  # from here on, a moment's thought
NUMBER_PEOPLE = 1000  # from here on, the number itself is typed, so that it is read
URGENT_NUMBER_PEOPLE = 200  # the same for what rings everywhere


@dataclass(frozen=True, slots=True)
class Confirmation:
    """`tick`: "I understand…" is ticked. `number`: the reach is typed. `password`: the sender proves to be there."""

    tick: bool = False
    number: bool = False
    password: bool = False

    @property
    def is_click(self) -> bool:
        return not (self.tick or self.number or self.password)


@dataclass(frozen=True, slots=True)
class Given:
    """What somebody did besides the click, as they say: ticked, typed the number of people, given their password."""

    understood: bool = False
    people: int | None = None
    password: str = field(default="", repr=False)


def is_asked_again(status: Status, before: Priority, after: Priority, *, again: bool) -> bool:
    """Whether changing what is in `status` must be confirmed as sending it must.

    A draft reaches nobody. A plan was confirmed as it was. What is live alarms anew when it is shown again or gets louder.
    """
    ranks = list(Priority)
    match Status(status):
        case Status.SCHEDULED:
            return True
        case Status.ACTIVE:
            return again or ranks.index(after) > ranks.index(before)
    return False


def needed(draft: Draft, reach: int) -> Confirmation:
    """What the sender of this draft to this many people must do besides the click."""
    return needed_for(draft.priority, reach, is_for_all=draft.target.type is TargetType.ALL)


def needed_for(priority: Priority, reach: int, *, is_for_all: bool) -> Confirmation:
    urgent = priority is Priority.URGENT
    number = reach >= (URGENT_NUMBER_PEOPLE if urgent else NUMBER_PEOPLE)
    return Confirmation(
        tick=not number and (urgent or reach >= TICK_PEOPLE), number=number, password=urgent and is_for_all
    )
