"""Users: the list, one user, creating them one by one or from a table."""

import re
from typing import Any

from flask import Blueprint, request

from broadcast.actions import accounts, external_login, sessions
from broadcast.actions import email_addresses as email_actions
from broadcast.actions import user_import as importing
from broadcast.actions import users as actions
from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock, csv_reader, permissions
from broadcast.domain.permissions import Permission
from broadcast.store import email_addresses, invitations, users
from broadcast.store.models import User
from broadcast.store.users import UserFilters
from broadcast.streams.presence import PRESENCE
from broadcast.web.console.users.roles import list_permissions, sort_role_names
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import or_404
from broadcast.web.core.rendering import is_htmx, redirect_to, render_page
from broadcast.web.core.request_parsing import read_choice, read_known, read_text, to_form_errors
from broadcast.web.core.resumable_forms import raise_if_resumed

blueprint = Blueprint("people", __name__, url_prefix="/console/people")

PAGE_SIZE = 50
MAX_COUNTED = 10_000  # more are shown as "more than" this
MAX_BAD_ROWS_SHOWN = 200
MAX_NEW_ROLES_SHOWN = 50
_ACCOUNT_STATES = ("", "enabled", "disabled")
_ACCESS_CHANGES = {
    "disable": (actions.disable_user, "Account disabled. All sessions and streams have ended."),
    "enable": (actions.enable_user, "Account enabled."),
    "sign-out": (sessions.end_sessions, "Signed out everywhere. All sessions and streams have ended."),
}


@blueprint.get("")
@allow(Permission.PEOPLE)
def listing():
    filters = _read_filters()
    fetched = users.list_page(filters, after=read_text(request.args, "after", 64), limit=PAGE_SIZE + 1)
    displayed = fetched[:PAGE_SIZE]
    values = {
        "people": displayed,
        "filters": filters,
        "next": displayed[-1].username if len(fetched) > PAGE_SIZE else None,
        "online": PRESENCE.current.get_online_ids(),
        "last_seen": users.get_last_seen([person.id for person in displayed]),
    }
    if is_htmx() and request.args.get("after"):
        return render_page("console/users/_rows.html", **values)
    total = users.count_matching(filters, max_count=MAX_COUNTED)
    roles = users.count_users_by_role()
    return render_page("console/users/list.html", total=total, most=MAX_COUNTED, roles=roles, **values)


@blueprint.get("/new")
@allow(Permission.PEOPLE)
def new():
    return _render_new_form({"username": "", "name": "", "roles": []}, {})


@blueprint.post("")
@allow(Permission.PEOPLE, is_resumable=True)
def create():
    form = request.form
    typed = {"username": form.get("username", ""), "name": form.get("name", ""), "roles": _read_submitted_roles()}
    password = form.get("password", "") or None
    try:
        raise_if_resumed()
        user_id = actions.create_user(**typed, password=password, by=current_identity().actor, now=clock.now())
    except (Invalid, Conflict) as problem:
        return _render_new_form(typed, to_form_errors(problem, "username")), problem.status
    return redirect_to("people.detail", user_id=user_id)


@blueprint.get("/<int:user_id>")
@allow(Permission.PEOPLE)
def detail(user_id: int):
    return _render_user(user_id)


@blueprint.post("/<int:user_id>/name")
@allow(Permission.PEOPLE, is_resumable=True)
def rename(user_id: int):
    typed = request.form.get("name", "")
    try:
        raise_if_resumed()
        accounts.rename(user_id, typed, by=current_identity().actor, now=clock.now())
    except Invalid as invalid:
        return _render_user(user_id, errors=invalid.fields, name=typed), invalid.status
    return redirect_to(
        "people.detail", "Name saved. Broadcasts that have already been sent keep the old name.", user_id=user_id
    )


@blueprint.post("/<int:user_id>/email")
@allow(Permission.PEOPLE, is_resumable=True)
def set_email(user_id: int):
    typed = request.form.get("email", "")
    try:
        raise_if_resumed()
        email_actions.set_by_administrator(user_id, typed, by=current_identity().actor, now=clock.now())
    except Invalid as invalid:
        return _render_user(user_id, errors=invalid.fields, address=typed), invalid.status
    notice = "Address saved." if typed.strip() else "Address removed."
    return redirect_to("people.detail", notice, user_id=user_id)


@blueprint.post("/<int:user_id>/delete")
@allow(Permission.PEOPLE)
def delete(user_id: int):
    user, typed = _get_user_or_404(user_id), request.form.get("typedUsername", "")
    username, is_self = user.username, user.id == current_identity().id
    try:
        accounts.delete(user_id, typed_username=typed, by=current_identity().actor, now=clock.now())
    except (Invalid, Conflict) as problem:
        return _render_user(user_id, errors=to_form_errors(problem, "typedUsername")), problem.status
    if is_self:
        return redirect_to("auth.login")
    return redirect_to("people.listing", f"The account {username} is deleted.")


@blueprint.post("/<int:user_id>/roles")
@allow(Permission.PEOPLE, is_resumable=True)
def set_roles(user_id: int):
    roles = _read_submitted_roles()
    try:
        raise_if_resumed()
        actions.set_roles(user_id, roles, by=current_identity().actor, now=clock.now())
    except (Invalid, Conflict) as problem:
        return _render_user(user_id, errors=to_form_errors(problem, "roles"), roles=roles), problem.status
    return redirect_to("people.detail", "Roles saved. Open pages update within a second.", user_id=user_id)


@blueprint.post("/<int:user_id>/disable", defaults={"verb": "disable"})
@blueprint.post("/<int:user_id>/enable", defaults={"verb": "enable"})
@blueprint.post("/<int:user_id>/sign-out", defaults={"verb": "sign-out"})
@allow(Permission.PEOPLE)
def change_access(user_id: int, verb: str):
    change, notice = _ACCESS_CHANGES[verb]
    change(user_id, by=current_identity().actor, now=clock.now())
    return redirect_to("people.detail", notice, user_id=user_id)


@blueprint.post("/<int:user_id>/password")
@allow(Permission.PEOPLE)
def reset_password(user_id: int):
    """Renders the page instead of a redirect: the password is shown only once and not stored."""
    password = accounts.reset_password(user_id, by=current_identity().actor, now=clock.now())
    return _render_user(user_id, password=password)


@blueprint.post("/<int:user_id>/unlink")
@allow(Permission.PEOPLE)
def unlink(user_id: int):
    external_login.unlink_identity(user_id, _get_issuer(), by=current_identity().actor, now=clock.now())
    return redirect_to("people.detail", "Identity provider account unlinked.", user_id=user_id)


@blueprint.get("/import")
@allow(Permission.PEOPLE)
def import_form():
    return _render_import()


@blueprint.post("/import")
@allow(Permission.PEOPLE, is_resumable=True, is_large=True)
def import_table():
    """Check a table or import it. Rows left out come back in the field, to be corrected, or imported with new roles."""
    only_check = read_choice("act", ("check", "import"), "check") != "import"
    table, guessed_encoding, new_roles = request.form.get("table", ""), None, request.form.getlist("newRoles")
    try:
        raise_if_resumed()
        if file := request.files.get("file"):
            table, guessed_encoding = csv_reader.decode_table(file.read())
        report = importing.import_users(
            table, by=current_identity().actor, now=clock.now(), is_dry_run=only_check, new_roles=new_roles
        )
    except Invalid as invalid:
        return _render_import(table=table, error=str(invalid) or None), invalid.status
    return _render_import(
        report=report,
        bad=report.bad[:MAX_BAD_ROWS_SHOWN],
        roles=sorted(report.missing_roles.items(), key=lambda role: -role[1])[:MAX_NEW_ROLES_SHOWN],
        table=table if only_check else "\n".join(report.rejected_lines) if report.bad else "",
        checked=only_check,
        guessed=guessed_encoding and (guessed_encoding, _find_accented_line(table)),
    )


def _render_import(**values: Any) -> str:
    empty = {"report": None, "table": "", "error": None, "checked": False, "guessed": None}
    return render_page("console/users/import.html", **empty | values)


def _find_accented_line(table: str) -> str:
    """A line of the table with accents, which shows whether its encoding was guessed right."""
    first_accented = re.search(r"[^\x00-\x7f]", table)
    if first_accented is None:
        return ""
    surroundings = table[max(0, first_accented.start() - 30) : first_accented.end() + 30]
    return next((line for line in surroundings.splitlines() if not line.isascii()), "")


def _render_new_form(typed: dict[str, Any], errors: dict[str, str]) -> str:
    return render_page("console/users/new.html", form=typed, errors=errors, roles=_list_known_roles(typed["roles"]))


def _render_user(user_id: int, *, password: str | None = None, errors: dict | None = None, **typed: Any) -> str:
    """The page of a user; `name`, `address` and `roles` may be what was typed."""
    user, email = _get_user_or_404(user_id), email_addresses.get(user_id)
    return render_page(
        "console/users/detail.html",
        user=user,
        name=typed.get("name", user.name),
        roles=_list_known_roles(typed.get("roles", user.roles)),
        unsent=users.count_unsent_by_status(user.id),
        invitation=invitations.get_for_user(user.id),
        may=sorted(permissions.get_role_permissions(user.roles)),
        sessions=users.list_open_sessions(user.id),
        tokens=[token for token, _ in users.list_tokens(user.id)],
        identity=users.get_external_identity(user.id, _get_issuer()),
        email=email,
        address=typed.get("address", (email and email.address) or ""),
        is_online=PRESENCE.current.is_online(user.id),
        password=password,
        errors=errors or {},
    )


def _get_issuer() -> str:
    """The issuer URL of the OpenID provider; empty without one."""
    return SETTINGS.current.oidc_issuer or ""


def _list_known_roles(chosen_roles: Any) -> list[dict[str, Any]]:
    names = sort_role_names({*users.list_role_names(), *chosen_roles})
    return [{"name": name, "chosen": name in chosen_roles, "may": list_permissions(name)} for name in names]


def _read_submitted_roles() -> list[str]:
    """The ticked roles, and those typed into the field for new ones."""
    return [*request.form.getlist("roles"), *request.form.get("newRoles", "").replace(",", " ").split()]


def _get_user_or_404(user_id: int) -> User:
    user = or_404(users.get(user_id), "There is no such user.")
    if user.deleted_at:
        raise NotFound("This account was deleted.")
    return user


def _read_filters() -> UserFilters:
    return UserFilters(
        read_text(request.args, "q", 100),
        read_text(request.args, "role", 64),
        read_known(request.args, "state", _ACCOUNT_STATES, ""),
    )
