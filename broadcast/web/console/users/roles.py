"""Roles: who has them, what refers to them, and creating, renaming and deleting them."""

from collections.abc import Iterable

from flask import Blueprint, request

from broadcast.actions import roles as actions
from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.domain import clock, permissions
from broadcast.domain.permissions import CONSOLE_ROLES, Permission
from broadcast.ingest.rules import RULES
from broadcast.store import roles, users
from broadcast.store.models import Broadcast
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import redirect_to, render_page
from broadcast.web.core.request_parsing import to_form_errors
from broadcast.web.core.resumable_forms import raise_if_resumed

blueprint = Blueprint("roles", __name__, url_prefix="/console/roles")

MAX_BROADCASTS_SHOWN = 50  # on the page of one role


@blueprint.get("")
@allow(Permission.PEOPLE)
def listing():
    return _render_list("", {})


@blueprint.post("")
@allow(Permission.PEOPLE, is_resumable=True)
def create():
    name = request.form.get("name", "")
    try:
        raise_if_resumed()
        name = actions.create(name, by=current_identity().actor, now=clock.now())
    except Invalid as invalid:
        return _render_list(name, invalid.fields), invalid.status
    return redirect_to("roles.listing", f"The role {name} has been created. Assign it to users on their pages.")


@blueprint.get("/<name>")
@allow(Permission.PEOPLE)
def detail(name: str):
    return _render_role(name, name, {})


@blueprint.post("/<name>/rename")
@allow(Permission.PEOPLE, is_resumable=True)
def rename(name: str):
    typed = request.form.get("name", "")
    try:
        raise_if_resumed()
        new_name = actions.rename(name, typed, by=current_identity().actor, now=clock.now())
    except (Invalid, Conflict) as problem:
        return _render_role(name, typed, to_form_errors(problem, "name")), problem.status
    notice = f"The role {name} is called {new_name} now. Everything that uses it has been updated."
    return redirect_to("roles.detail", notice, name=new_name)


@blueprint.post("/<name>/delete")
@allow(Permission.PEOPLE)
def delete(name: str):
    """Requires a ticked confirmation if a user has the role or a broadcast names it."""
    _require_known_role(name)
    is_used = users.count_users_by_role().get(name) or roles.list_broadcasts(name, limit=1)
    if is_used and not request.form.get("understood"):
        return _render_role(name, name, {"understood": "Confirm that you understand what this means."}), Invalid.status
    actions.delete(name, by=current_identity().actor, now=clock.now())
    return redirect_to("roles.listing", f"The role {name} is deleted.")


def _render_list(typed: str, errors: dict[str, str]) -> str:
    counts = users.count_users_by_role()
    return render_page(
        "console/users/roles.html",
        permissions={name: list_permissions(name) for name in sort_role_names(counts)},
        built_in=CONSOLE_ROLES,
        counts=counts,
        unended=roles.count_unended_broadcasts(),
        typed=typed,
        errors=errors,
    )


def _render_role(name: str, typed: str, errors: dict[str, str]) -> str:
    _require_known_role(name)
    naming_broadcasts = roles.list_broadcasts(name, limit=MAX_BROADCASTS_SHOWN + 1)
    return render_page(
        "console/users/role.html",
        name=name,
        typed=typed,
        errors=errors,
        is_built_in=name in CONSOLE_ROLES,
        may=list_permissions(name),
        people=users.count_users_by_role().get(name, 0),
        broadcasts=[(row, _describe_effect(row, name)) for row in naming_broadcasts[:MAX_BROADCASTS_SHOWN]],
        more=len(naming_broadcasts) > MAX_BROADCASTS_SHOWN,
        saved=roles.list_saved_audiences(name),
        rules=_find_rules_naming(name),
    )


def _require_known_role(name: str) -> None:
    if name not in CONSOLE_ROLES and roles.get(name) is None:
        raise NotFound("There is no such role.")


def _describe_effect(broadcast: Broadcast, name: str) -> str:
    """What deleting the role means for a broadcast, as a sentence."""
    if name in broadcast.except_role_names:
        return "Excludes this role: users who have it now stay excluded by name."
    if actions.would_reach_nobody(broadcast, name):
        return {
            "DRAFT": "Would reach nobody. Choose another audience.",
            "SCHEDULED": "Would reach nobody. It becomes a draft again.",
            "ACTIVE": "Removed from every inbox, as it has no other recipients.",
        }[broadcast.status]
    return "Removed from the inboxes of users who received it only through this role."


def _find_rules_naming(name: str) -> list[int]:
    """The numbers of the rules in the rules file that name the role."""
    return [
        number
        for number, rule in enumerate(RULES.current, 1)
        if roles.names_role(rule.defaults, name) or f"role:{name}" in (rule.audiences or ())
    ]


def sort_role_names(names: Iterable[str]) -> list[str]:
    """These roles and those of the console, which come first."""
    return sorted({*names, *CONSOLE_ROLES}, key=lambda name: (name not in CONSOLE_ROLES, name))


def list_permissions(name: str) -> list[str]:
    return [str(permission) for permission in Permission if permission in permissions.get_role_permissions([name])]
