"""The escalation policies."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from broadcast.domain.escalation import Policy, PolicyStep
from broadcast.store.database import db
from broadcast.store.models import EscalationPolicy, EscalationStep


def list_policies() -> list[Policy]:
    """Every policy, by name."""
    # columns, not rows: read at each publishing
    columns = (EscalationPolicy.name, EscalationPolicy.steps, EscalationPolicy.default_for)
    rows = db.session.execute(select(*columns).order_by(EscalationPolicy.name))
    return [Policy(name, tuple(map(PolicyStep.from_json, steps)), tuple(default)) for name, steps, default in rows]


def list_rows() -> list[EscalationPolicy]:
    return list(db.session.scalars(select(EscalationPolicy).order_by(EscalationPolicy.name)))


def get(policy_id: int) -> EscalationPolicy | None:
    return db.session.get(EscalationPolicy, policy_id)


def rename_role(session: Session, old: str, new: str) -> None:
    """Name a role that was renamed, in policies and in steps that are still to be planned."""
    for row in list_rows():
        row.steps = [step | {"role": new} if step.get("role") == old else step for step in row.steps]
    is_unplanned = (EscalationStep.role == old, EscalationStep.planned_at.is_(None))
    session.execute(update(EscalationStep).where(*is_unplanned).values(role=new))
