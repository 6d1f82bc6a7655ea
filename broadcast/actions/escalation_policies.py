"""Escalation policies: administrators change them, senders choose one. Each change counts for what is sent from then on."""

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy.orm import Session

from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.domain.actor import Actor
from broadcast.domain.escalation import Policy, PolicyStep, check_policy, select_policy
from broadcast.domain.message import NO_ESCALATION, Priority
from broadcast.domain.permissions import Permission
from broadcast.store import audit, escalation_policies, users
from broadcast.store.fast.broadcast_row import NewBroadcast
from broadcast.store.models import Broadcast, EscalationPolicy
from broadcast.store.transactions import write_transaction

MAX_POLICIES = 50


def save_policy(
    policy_id: int | None,
    name: str,
    steps: Collection[PolicyStep | None],
    default_for: Collection[Priority],
    *,
    channels: Collection[str],
    by: Actor,
    now: datetime,
) -> None:
    """Change a policy, or add one (`policy_id` None). It becomes the default of these priorities, and of no others.

    Raises Forbidden, NotFound, Invalid, Conflict (there are too many, or another has that name), TemporarilyUnavailable.
    """
    by.require(Permission.OPERATE)
    policy = check_policy(name, steps, channels=channels)
    _check_roles(policy)
    with write_transaction() as session:
        rows = escalation_policies.list_rows()
        if policy.name.casefold() in {other.name.casefold() for other in rows if other.id != policy_id}:
            raise Conflict(f"There is a policy {policy.name} already. Choose another name.")
        if policy_id is None and len(rows) >= MAX_POLICIES:
            raise Conflict(f"There are {MAX_POLICIES} policies already. Change or delete one of them.")
        row = _get_or_add(session, policy_id)
        row.name, row.steps = policy.name, policy.to_plan()["steps"]
        _set_defaults(row, default_for)
        detail = {"steps": row.steps, "default_for": row.default_for}
        audit.record(session, by, "escalation.saved", "escalation", policy.name, now=now, **detail)


def delete_policy(policy_id: int, *, by: Actor, now: datetime) -> None:
    """Broadcasts that are scheduled with it get the default of their priority. Raises Forbidden, NotFound."""
    by.require(Permission.OPERATE)
    with write_transaction() as session:
        row = _get_or_404(session, policy_id)
        session.delete(row)
        audit.record(session, by, "escalation.deleted", "escalation", row.name, now=now)


def check_choice(name: str | None) -> None:
    """Raises Invalid unless there is such a policy; None and NO_ESCALATION name none."""
    if name is None or name == NO_ESCALATION:
        return
    names = [policy.name for policy in escalation_policies.list_policies()]
    if name not in names:
        choices = ", ".join([NO_ESCALATION, *names])
        raise Invalid({"escalation": f"There is no escalation policy {name}. Choose one of: {choices}."})


def fix_plans(rows: Iterable[Broadcast | NewBroadcast]) -> None:
    """Write the policy of each broadcast that is published now into it, as it is now."""
    policies = None
    for row in rows:
        policies = escalation_policies.list_policies() if policies is None else policies
        policy = select_policy(row.escalation, row.priority, policies)
        row.escalation_plan = policy and policy.to_plan()


def _check_roles(policy: Policy) -> None:
    missing = users.find_missing_roles(step.role for step in policy.steps if step.role)
    for index, step in enumerate(policy.steps):
        if step.role in missing:
            raise Invalid({f"step{index}": f"There is no role {step.role}."})


def _get_or_404(session: Session, policy_id: int) -> EscalationPolicy:
    row = session.get(EscalationPolicy, policy_id)
    if row is None:
        raise NotFound("There is no such escalation policy.")
    return row


def _get_or_add(session: Session, policy_id: int | None) -> EscalationPolicy:
    if policy_id is not None:
        return _get_or_404(session, policy_id)
    row = EscalationPolicy()
    session.add(row)
    return row


def _set_defaults(row: EscalationPolicy, default_for: Collection[Priority]) -> None:
    """Each priority has one default: the others lose these."""
    row.default_for = [priority.value for priority in Priority if priority in default_for]
    for other in escalation_policies.list_rows():
        if other is not row:
            other.default_for = [priority for priority in other.default_for if priority not in row.default_for]
