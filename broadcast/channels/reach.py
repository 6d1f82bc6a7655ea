"""Whom the ladder of a message that is not sent yet would reach, by which channel; and whom nothing would."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from broadcast.base.cooperative import Yielder
from broadcast.channels.escalation import is_wanted
from broadcast.channels.protocol import Channel
from broadcast.channels.registry import CHANNELS, get_labels
from broadcast.domain.audience import Audience
from broadcast.domain.escalation import Policy, PolicyStep
from broadcast.domain.message import Draft
from broadcast.store import audiences, escalation

_SCANNED_USERS = 1_000  # at once


class StepReach(NamedTuple):
    """How many people the step reaches if nobody has done by then what it waits for; None for one that tells a role."""

    step: PolicyStep
    people: int | None


class LadderReach(NamedTuple):
    """`unreached` people see the message on a page or not at all. `labels` are the names of the channels on pages."""

    policy: Policy
    steps: Sequence[StepReach]
    unreached: int
    labels: Mapping[str, str]


class Unreached(NamedTuple):
    """Somebody whom no channel of the ladder reaches."""

    user_id: int
    name: str


def measure_reach(policy: Policy, audience: Audience, draft: Draft) -> LadderReach:
    """Count the audience as it is now. Lets other greenlets run."""
    channels, people, unreached = _get_channels(policy), Counter(), 0
    columns = [channel.has_address() for channel in channels.values()]
    yielder = Yielder()
    for key, count in audiences.count_groups(audience, escalation.PREFERENCES_TEXT, *columns).items():
        reaching = _find_reaching(channels, draft, *key)
        people.update(dict.fromkeys(reaching, count))
        unreached += 0 if reaching else count
        yielder.maybe_yield()
    steps = [StepReach(step, people[step.channel] if step.channel else None) for step in policy.steps]
    return LadderReach(policy, steps, unreached, get_labels())


def list_unreached(policy: Policy, audience: Audience, draft: Draft, *, limit: int) -> list[Unreached]:
    """The first of those whom no channel reaches, by id. Lets other greenlets run."""
    channels, found, last_id, yielder = _get_channels(policy), [], 0, Yielder()
    columns = [channel.has_address() for channel in channels.values()]
    condition = escalation.may_be_unreached(columns)
    while len(found) < limit:
        rows = audiences.list_members(
            audience, condition, escalation.USER_NAME, escalation.PREFERENCES_TEXT, *columns,
            after=last_id, limit=_SCANNED_USERS,
        )  # fmt: skip
        for last_id, name, *key in rows:
            if not _find_reaching(channels, draft, *key):
                found.append(Unreached(last_id, name))
            yielder.maybe_yield()
        if len(rows) < _SCANNED_USERS:
            break
    return found[:limit]


def _get_channels(policy: Policy) -> dict[str, Channel]:
    """The channels of a policy that are set up here."""
    names = dict.fromkeys(step.channel for step in policy.steps)
    return {name: channel for name, channel in CHANNELS.current.items() if name in names}


def _find_reaching(
    channels: Mapping[str, Channel], draft: Draft, preferences_text: str | None, *has_address: bool
) -> list[str]:
    preferences = escalation.parse_preferences_text(preferences_text)
    return [
        name
        for (name, channel), is_known in zip(channels.items(), has_address, strict=True)
        if is_known and is_wanted(channel, draft, preferences)
    ]
