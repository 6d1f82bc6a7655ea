"""How much effort sending takes: it grows with how many people are reached, and how loudly."""

from dataclasses import dataclass

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


def needed(draft: Draft, reach: int) -> Confirmation:
    """What the sender of this draft to this many people must do besides the click."""
    return needed_for(draft.priority, reach, is_for_all=draft.target.type is TargetType.ALL)


def needed_for(priority: Priority, reach: int, *, is_for_all: bool) -> Confirmation:
    urgent = priority is Priority.URGENT
    number = reach >= (URGENT_NUMBER_PEOPLE if urgent else NUMBER_PEOPLE)
    return Confirmation(
        tick=not number and (urgent or reach >= TICK_PEOPLE), number=number, password=urgent and is_for_all
    )
