"""Escalation policies: which channel reaches whom when a broadcast is not seen, read or acknowledged for some time.

A policy is a list of steps. The policy of a broadcast is fixed when it is published; its steps are the *ladder*.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from broadcast.base.errors import Invalid
from broadcast.domain.message import MAX_POLICY_CHARACTERS, NO_ESCALATION, is_visible_line

MAX_STEPS = 6
MAX_MINUTES = 7 * 24 * 60
_RESERVED_NAMES = (NO_ESCALATION, "default")


class Awaited(StrEnum):
    """What a step waits for. A message that asks for no acknowledgement is acknowledged by reading it."""

    SEEN = "SEEN"
    READ = "READ"
    ACKNOWLEDGED = "ACKNOWLEDGED"


@dataclass(frozen=True, slots=True)
class PolicyStep:
    """After so many minutes, `channel` reaches who has not done what the step awaits, or the role is told how many."""

    minutes: int
    awaits: Awaited
    channel: str | None = None
    role: str | None = None

    def to_json(self) -> dict[str, Any]:
        target = {"channel": self.channel} if self.channel else {"role": self.role}
        return {"minutes": self.minutes, "awaits": self.awaits.value} | target

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "PolicyStep":
        """Read back what `to_json` wrote."""
        return cls(raw["minutes"], Awaited(raw["awaits"]), raw.get("channel"), raw.get("role"))


@dataclass(frozen=True, slots=True)
class Policy:
    """`default_for` are the priorities whose broadcasts have it unless their sender chooses another."""

    name: str
    steps: tuple[PolicyStep, ...]
    default_for: tuple[str, ...] = ()

    def to_plan(self) -> dict[str, Any]:
        """As it is fixed on a broadcast."""
        return {"policy": self.name, "steps": [step.to_json() for step in self.steps]}


def read_plan(plan: Mapping[str, Any] | None) -> Policy | None:
    """Read back what `Policy.to_plan` wrote."""
    return plan and Policy(plan["policy"], tuple(map(PolicyStep.from_json, plan["steps"])))


def select_policy(choice: str | None, priority: str, policies: Iterable[Policy]) -> Policy | None:
    """The policy of a broadcast whose sender chose one by name, none, or the default of its priority (None).

    A policy that was deleted since it was chosen counts as not chosen.
    """
    policies = list(policies)
    if choice == NO_ESCALATION:
        return None
    chosen = [policy for policy in policies if policy.name == choice]
    default = [policy for policy in policies if priority in policy.default_for]
    return next(iter(chosen + default), None)


def check_policy(name: str, steps: Collection[PolicyStep | None], *, channels: Collection[str]) -> Policy:
    """A policy as an administrator typed it; None is a step that is no step. The steps come out in the order of time.

    Raises Invalid, with errors of a step under `step0`, `step1` …
    """
    name, problems = " ".join(name.split()), {}
    if not is_visible_line(name, MAX_POLICY_CHARACTERS):
        problems["name"] = f"Type a name of 1 to {MAX_POLICY_CHARACTERS} characters."
    elif name.casefold() in _RESERVED_NAMES:
        problems["name"] = f"The name {name} has a meaning of its own. Choose another one."
    if not steps:
        problems["step0"] = "A policy needs at least one step."
    if len(steps) > MAX_STEPS:
        problems["step0"] = f"A policy has at most {MAX_STEPS} steps."
    for index, step in enumerate(steps):
        if step is None or not 0 <= step.minutes <= MAX_MINUTES:
            problems[f"step{index}"] = f"Type minutes from 0 to {MAX_MINUTES:,}, and choose a way."
        elif step.channel and step.channel not in channels:
            problems[f"step{index}"] = f"There is no channel {step.channel[:16]} here."
    if len({(step.minutes, step.channel, step.role) for step in steps if step}) < len(steps) and not problems:
        problems["step0"] = "Two steps do the same at the same time."
    if problems:
        raise Invalid(problems)
    return Policy(name, tuple(sorted((step for step in steps if step), key=lambda step: step.minutes)))
