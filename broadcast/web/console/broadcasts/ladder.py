"""The ladder of a broadcast as it is going: which steps are done, due or planned, and what became of them."""

from datetime import datetime
from typing import Any, Literal, NamedTuple

from broadcast.channels.registry import get_labels
from broadcast.domain import clock
from broadcast.domain.escalation import PolicyStep, read_plan
from broadcast.domain.lifecycle import Status
from broadcast.store import deliveries, escalation
from broadcast.store.models import Broadcast, EscalationStep
from broadcast.web.console import viewer_stats

_NO_DELIVERIES: dict[str, int] = {}


class LadderStep(NamedTuple):
    """One line. `counts` is None for who may not see what single recipients did, and before the step is taken."""

    step: PolicyStep
    state: Literal["done", "due", "planned", "ended"]
    at: datetime
    is_reminder: bool
    people: int | None = None
    counts: dict[str, int] | None = None


def build_ladder(broadcast: Broadcast) -> dict[str, Any]:
    """What the broadcast's page needs: `ladder` is empty for one without escalation."""
    steps, policy = escalation.list_steps(broadcast.id), read_plan(broadcast.escalation_plan)
    counts = deliveries.count_by_step(broadcast.id) if steps and viewer_stats.may_see_per_recipient_stats() else None
    lines = [_describe(broadcast, row, None if counts is None else counts.get(row.id, _NO_DELIVERIES)) for row in steps]
    return {
        "ladder": sorted(lines, key=lambda line: line.at),
        "policy": policy and policy.name,
        "is_sent": broadcast.seq is not None,
        "channel_labels": get_labels(),
    }


def _describe(broadcast: Broadcast, row: EscalationStep, counts: dict[str, int] | None) -> LadderStep:
    minutes = round((row.due_at - row.started_at).total_seconds() / 60)
    step = PolicyStep.from_json({"minutes": minutes, "awaits": row.awaits, "channel": row.channel, "role": row.role})
    if row.planned_at is not None:
        people = None if counts is None else row.people
        return LadderStep(step, "done", row.planned_at, row.skips_online, people, counts)
    if broadcast.status != Status.ACTIVE:
        state = "ended"
    else:
        state = "due" if row.due_at <= clock.now() else "planned"
    return LadderStep(step, state, row.due_at, row.skips_online)
