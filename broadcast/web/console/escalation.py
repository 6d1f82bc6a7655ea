"""The pages of escalation policies: the list, and the form that changes one."""

from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from broadcast.actions import escalation_policies as actions
from broadcast.base.errors import Conflict, Invalid
from broadcast.base.numbers import parse_number
from broadcast.channels.registry import CHANNELS, get_labels
from broadcast.domain import clock
from broadcast.domain.escalation import MAX_STEPS, Awaited, PolicyStep
from broadcast.domain.message import Priority
from broadcast.domain.permissions import Permission
from broadcast.store import escalation_policies, users
from broadcast.store.models import EscalationPolicy
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import or_404
from broadcast.web.core.rendering import redirect_to, render_page
from broadcast.web.core.request_parsing import read_text, to_form_errors

blueprint = Blueprint("escalation", __name__, url_prefix="/channels/escalation")

_NOT_FOUND = "There is no such escalation policy."
_MAX_NAME_CHARACTERS = 200  # of what is typed; the rule is in `domain.escalation`


@blueprint.get("")
@allow(Permission.OPERATE)
def index():
    policies = escalation_policies.list_rows()
    defaults = {priority: row.name for row in policies for priority in row.default_for}
    return render_page(
        "console/escalation/list.html",
        policies=policies,
        steps_by_id={row.id: [PolicyStep.from_json(step) for step in row.steps] for row in policies},
        defaults=defaults,
        channels=get_labels(),
    )


@blueprint.get("/new")
@allow(Permission.OPERATE)
def new():
    return _render_form(None, {"name": "", "steps": [], "default_for": []}, {})


@blueprint.post("")
@allow(Permission.OPERATE)
def create():
    return _save(None)


@blueprint.get("/<int:policy_id>")
@allow(Permission.OPERATE)
def show(policy_id: int):
    row = or_404(escalation_policies.get(policy_id), _NOT_FOUND)
    return _render_form(row, {"name": row.name, "steps": row.steps, "default_for": row.default_for}, {})


@blueprint.post("/<int:policy_id>")
@allow(Permission.OPERATE)
def save(policy_id: int):
    return _save(or_404(escalation_policies.get(policy_id), _NOT_FOUND))


@blueprint.post("/<int:policy_id>/delete")
@allow(Permission.OPERATE)
def delete(policy_id: int):
    actions.delete_policy(policy_id, by=current_identity().actor, now=clock.now())
    return redirect_to("console.escalation.index", "Deleted. Broadcasts that were sent with it keep it.")


def _save(row: EscalationPolicy | None) -> ResponseReturnValue:
    typed = {"name": read_text(request.form, "name", _MAX_NAME_CHARACTERS), "steps": _read_steps()}
    chosen = request.form.getlist("default_for")
    defaults = [priority for priority in Priority if priority.value in chosen]
    # a policy may keep a channel that is not set up at present
    channels = {*CHANNELS.current, *(step.get("channel") for step in (row.steps if row else ()))}
    steps = [_parse_step(step) for step in typed["steps"]]
    by, now = current_identity().actor, clock.now()
    try:
        actions.save_policy(row and row.id, typed["name"], steps, defaults, channels=channels, by=by, now=now)
    except (Invalid, Conflict) as problem:
        errors = to_form_errors(problem, "name")
        return _render_form(row, typed | {"default_for": defaults}, errors), problem.status
    return redirect_to("console.escalation.index", "Saved. It applies to what is sent from now on.")


def _read_steps() -> list[dict[str, Any]]:
    """The rows of the form in which something was typed or chosen, as they fill the form again."""
    rows = []
    for number in range(MAX_STEPS):
        minutes, way = (read_text(request.form, f"{name}{number}", 80) for name in ("minutes", "way"))
        if minutes or way:
            kind, _, target = way.partition(":")
            rows.append({"minutes": minutes, "awaits": request.form.get(f"awaits{number}"), kind or "channel": target})
    return rows


def _parse_step(raw: dict[str, Any]) -> PolicyStep | None:
    minutes, target = parse_number(raw["minutes"]), {name: raw.get(name) or None for name in ("channel", "role")}
    if minutes is None or raw["awaits"] not in set(Awaited) or not any(target.values()):
        return None
    return PolicyStep(minutes, Awaited(raw["awaits"]), **target)


def _render_form(row: EscalationPolicy | None, typed: dict[str, Any], errors: dict[str, str]) -> str:
    kept = {step["channel"]: step["channel"] for step in (row.steps if row else ()) if step.get("channel")}
    return render_page(
        "console/escalation/policy.html",
        policy=row,
        typed=typed,
        errors=errors,
        rows=[*typed["steps"], *[{}] * (MAX_STEPS - len(typed["steps"]))],
        roles=users.list_role_names(),
        priorities=list(Priority),
        channels=kept | get_labels(),
    )
