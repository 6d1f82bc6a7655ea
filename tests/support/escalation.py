"""Escalation policies for tests."""

from sqlalchemy import delete

from broadcast.domain.escalation import Awaited, PolicyStep
from broadcast.store.models import EscalationPolicy
from broadcast.store.transactions import write_transaction


def set_policy(priority: str, *steps: PolicyStep, name: str = "") -> None:
    """Make these steps the default of a priority, whose policy is named after it; no steps: it has none."""
    name = name or priority.capitalize()
    with write_transaction() as session:
        session.execute(delete(EscalationPolicy).where(EscalationPolicy.name == name))
        if steps:
            raw = [step.to_json() for step in steps]
            session.add(EscalationPolicy(name=name, steps=raw, default_for=[priority]))


def by_channel(minutes: int, channel: str = "email", awaits: str = "SEEN") -> PolicyStep:
    return PolicyStep(minutes, Awaited(awaits), channel=channel)


def to_role(minutes: int, role: str, awaits: str = "SEEN") -> PolicyStep:
    return PolicyStep(minutes, Awaited(awaits), role=role)
