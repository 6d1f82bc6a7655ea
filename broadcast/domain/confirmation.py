"""How much effort sending takes: it grows with how many people are reached, and how loudly.

It is asked of people, whatever they send with: a form, a page's script, the JSON interface with their session. A program with a
token is not asked.
"""

from dataclasses import dataclass, field

from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Draft, Priority, TargetType

MIN_RECIPIENTS_TO_TICK = 50  # from here on, a moment's thought
MIN_RECIPIENTS_TO_TYPE_COUNT = 1000  # from here on, the number itself is typed, so that it is read
MIN_URGENT_RECIPIENTS_TO_TYPE_COUNT = 200  # the same for what rings everywhere


@dataclass(frozen=True, slots=True)
class ConfirmationRequirement:
    """`needs_tick`: "I understand…" is ticked. `needs_typed_count`: the reach is typed. `needs_password`: the sender
    proves to be there.
    """

    needs_tick: bool = False
    needs_typed_count: bool = False
    needs_password: bool = False

    @property
    def is_click_enough(self) -> bool:
        return not (self.needs_tick or self.needs_typed_count or self.needs_password)


@dataclass(frozen=True, slots=True)
class ConfirmationInput:
    """What somebody did besides the click, as they say: ticked, typed the number of people, given their password."""

    has_understood: bool = False
    typed_count: int | None = None
    password: str = field(default="", repr=False)


def needs_reconfirmation(
    status: Status, old_priority: Priority, new_priority: Priority, *, is_shown_again: bool
) -> bool:
    """Whether changing what is in `status` must be confirmed as sending it must.

    A draft reaches nobody. A plan was confirmed as it was. What is live alarms anew when it is shown again or gets louder.
    """
    ranks = list(Priority)
    match Status(status):
        case Status.SCHEDULED:
            return True
        case Status.ACTIVE:
            return is_shown_again or ranks.index(new_priority) > ranks.index(old_priority)
    return False


def get_requirement(draft: Draft, recipient_count: int) -> ConfirmationRequirement:
    """What the sender of this draft to this many people must do besides the click."""
    return get_requirement_for(draft.priority, recipient_count, is_for_everyone=draft.target.type is TargetType.ALL)


def get_requirement_for(priority: Priority, recipient_count: int, *, is_for_everyone: bool) -> ConfirmationRequirement:
    is_urgent = priority is Priority.URGENT
    needs_typed_count = recipient_count >= (
        MIN_URGENT_RECIPIENTS_TO_TYPE_COUNT if is_urgent else MIN_RECIPIENTS_TO_TYPE_COUNT
    )
    return ConfirmationRequirement(
        needs_tick=not needs_typed_count and (is_urgent or recipient_count >= MIN_RECIPIENTS_TO_TICK),
        needs_typed_count=needs_typed_count,
        needs_password=is_urgent and is_for_everyone,
    )
