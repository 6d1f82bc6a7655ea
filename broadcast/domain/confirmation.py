"""How much confirmation sending needs: it grows with the number of recipients and with the priority.

Users are asked in every interface: form, page script, JSON API with a session. A program with a token is not.
"""

from dataclasses import dataclass, field

from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Draft, Priority, TargetType

MIN_RECIPIENTS_TO_TICK = 50  # from here on, tick a box
MIN_RECIPIENTS_TO_TYPE_COUNT = 1000  # from here on, type the number, so that it is read
MIN_URGENT_RECIPIENTS_TO_TYPE_COUNT = 200  # the same for urgent broadcasts


@dataclass(frozen=True, slots=True)
class ConfirmationRequirement:
    """`needs_tick`: tick "I understand…". `needs_typed_count`: type the number of recipients. `needs_password`: enter
    the sender's password.
    """

    needs_tick: bool = False
    needs_typed_count: bool = False
    needs_password: bool = False

    @property
    def is_click_enough(self) -> bool:
        return not (self.needs_tick or self.needs_typed_count or self.needs_password)


@dataclass(frozen=True, slots=True)
class ConfirmationInput:
    """What the user gave besides the click: a tick, the typed number of recipients, their password."""

    has_understood: bool = False
    typed_count: int | None = None
    password: str = field(default="", repr=False)


def needs_reconfirmation(status: Status, old: Priority, new: Priority, *, is_shown_again: bool) -> bool:
    """Whether editing a broadcast of this status and priority needs the same confirmation as sending it."""
    ranks = list(Priority)
    match Status(status):
        case Status.SCHEDULED:  # it was confirmed as it was; a draft reaches nobody
            return True
        case Status.ACTIVE:  # it may alert again
            return is_shown_again or ranks.index(new) > ranks.index(old)
    return False


def get_requirement(draft: Draft, recipient_count: int) -> ConfirmationRequirement:
    """What the sender of this draft must do, besides the click, to send it to this many recipients."""
    return get_requirement_for(draft.priority, recipient_count, is_for_everyone=draft.target.type is TargetType.ALL)


def get_requirement_for(priority: Priority, recipient_count: int, *, is_for_everyone: bool) -> ConfirmationRequirement:
    is_urgent = priority is Priority.URGENT
    min_recipients = MIN_URGENT_RECIPIENTS_TO_TYPE_COUNT if is_urgent else MIN_RECIPIENTS_TO_TYPE_COUNT
    needs_typed_count = recipient_count >= min_recipients
    return ConfirmationRequirement(
        needs_tick=not needs_typed_count and (is_urgent or recipient_count >= MIN_RECIPIENTS_TO_TICK),
        needs_typed_count=needs_typed_count,
        needs_password=is_urgent and is_for_everyone,
    )
