"""People and roles: the list, one person, making them by hand or from a table."""

import re
from typing import Any

from flask import Blueprint, flash, get_flashed_messages, redirect, request, url_for

from broadcast.actions import accounts, external_login
from broadcast.actions import user_import as importing
from broadcast.actions import users as actions
from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock, csv_reader, permissions
from broadcast.domain.permissions import CONSOLE_ROLES, Permission
from broadcast.store import accounts as account_rows
from broadcast.store import invitations, users
from broadcast.store.models import User
from broadcast.store.users import Filters
from broadcast.streams.presence import PRESENCE
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import is_htmx, page
from broadcast.web.core.request_parsing import choice
from broadcast.web.core.resumable_forms import pause_if_resumed, resumable
from broadcast.web.core.security_headers import large

blueprint = Blueprint("people", __name__, url_prefix="/console/people")

PAGE = 50
COUNTED = 10_000  # people; more are "more than" these
SHOWN_BAD_ROWS = 200
SHOWN_NEW_ROLES = 50
_STATES = ("", "enabled", "disabled")


@blueprint.get("")
@allow(Permission.PEOPLE)
def listing():
    filters = _filters()
    found = users.page(filters, after=_text("after", 64), limit=PAGE + 1)
    shown = found[:PAGE]
    values = {
        "people": shown,
        "filters": filters,
        "next": shown[-1].username if len(found) > PAGE else None,
        "online": PRESENCE.current.online_ids(),
        "last_seen": users.last_seen([person.id for person in shown]),
    }
    if is_htmx() and request.args.get("after"):
        return page("console/users/_rows.html", **values)
    total = users.count_found(filters, most=COUNTED)
    values |= {"roles": users.people_by_role(), "notices": get_flashed_messages()}
    return page("console/users/list.html", total=total, most=COUNTED, **values)


@blueprint.get("/new")
@allow(Permission.PEOPLE)
def new():
    return _form({"username": "", "name": "", "roles": []}, {})


@blueprint.post("")
@resumable
@allow(Permission.PEOPLE)
def create():
    form = request.form
    username, password = form.get("username", ""), form.get("password", "") or None
    try:
        pause_if_resumed()
        user_id = actions.create_person(
            username, password, name=form.get("name", ""), roles=_roles(), by=me().actor, now=clock.now()
        )
    except (Invalid, Conflict) as problem:
        typed = {"username": username, "name": form.get("name", ""), "roles": _roles()}
        return _form(typed, _on_form(problem, "username")), problem.status
    return redirect(url_for("people.one", user_id=user_id), 303)


@blueprint.get("/<int:user_id>")
@allow(Permission.PEOPLE)
def one(user_id: int):
    return page("console/users/detail.html", **_told(_found(user_id)))


@blueprint.post("/<int:user_id>/name")
@resumable
@allow(Permission.PEOPLE)
def rename(user_id: int):
    typed = request.form.get("name", "")
    try:
        pause_if_resumed()
        accounts.rename(user_id, typed, by=me().actor, now=clock.now())
    except Invalid as invalid:
        return page(
            "console/users/detail.html", **_told(_found(user_id), errors=invalid.fields, name=typed)
        ), invalid.status
    return _done(user_id, "The name is corrected. What was sent keeps the name it was sent with.")


@blueprint.post("/<int:user_id>/delete")
@allow(Permission.PEOPLE)
def delete(user_id: int):
    user, typed = _found(user_id), request.form.get("typedUsername", "")
    username, is_self = user.username, user.id == me().id
    try:
        accounts.delete(user_id, typed_username=typed, by=me().actor, now=clock.now())
    except (Invalid, Conflict) as problem:
        errors = _on_form(problem, "typedUsername")
        return page("console/users/detail.html", **_told(_found(user_id), errors=errors)), problem.status
    if is_self:
        return redirect(url_for("auth.login"), 303)
    flash(f"The account {username} is deleted.")
    return redirect(url_for("people.listing"), 303)


@blueprint.post("/<int:user_id>/roles")
@resumable
@allow(Permission.PEOPLE)
def set_roles(user_id: int):
    try:
        pause_if_resumed()
        actions.set_roles(user_id, _roles(), by=me().actor, now=clock.now())
    except (Invalid, Conflict) as problem:
        told = _told(_found(user_id), errors=_on_form(problem, "roles"), roles=_roles())
        return page("console/users/detail.html", **told), problem.status
    return _done(user_id, "The roles are changed; open pages follow within a second.")


@blueprint.post("/<int:user_id>/disable")
@allow(Permission.PEOPLE)
def disable(user_id: int):
    actions.disable(user_id, by=me().actor, now=clock.now())
    return _done(user_id, "The account is closed, with everything it had open.")


@blueprint.post("/<int:user_id>/enable")
@allow(Permission.PEOPLE)
def enable(user_id: int):
    actions.enable(user_id, by=me().actor, now=clock.now())
    return _done(user_id, "The account is open again.")


@blueprint.post("/<int:user_id>/password")
@allow(Permission.PEOPLE)
def reset_password(user_id: int):
    """The answer is the page itself, not a redirect: the password is shown this once and kept nowhere."""
    password = actions.reset_password(user_id, by=me().actor, now=clock.now())
    return page("console/users/detail.html", **_told(_found(user_id), password=password))


@blueprint.post("/<int:user_id>/sign-out")
@allow(Permission.PEOPLE)
def end_sessions(user_id: int):
    actions.end_sessions(user_id, by=me().actor, now=clock.now())
    return _done(user_id, "Every session is ended, and every stream is closed.")


@blueprint.post("/<int:user_id>/unlink")
@allow(Permission.PEOPLE)
def unlink(user_id: int):
    external_login.unlink(user_id, _issuer(), by=me().actor, now=clock.now())
    return _done(user_id, "The two accounts are parted.")


@blueprint.get("/import")
@allow(Permission.PEOPLE)
def import_form():
    return page("console/users/import.html", report=None, table="", error=None, checked=False, guessed=None)


@blueprint.post("/import")
@large
@resumable
@allow(Permission.PEOPLE)
def import_table():
    """Check a table or import it. Rows left out come back in the field: to be put right, or once more with roles made."""
    only_check = choice("act", ("check", "import"), "check") != "import"
    table, guessed, new_roles = request.form.get("table", ""), None, request.form.getlist("newRoles")
    try:
        pause_if_resumed()
        if file := request.files.get("file"):
            table, guessed = csv_reader.decode(file.read())
        report = importing.import_people(
            table, by=me().actor, now=clock.now(), only_check=only_check, new_roles=new_roles
        )
    except Invalid as invalid:
        values = {"report": None, "table": table, "error": str(invalid) or None, "checked": False, "guessed": None}
        return page("console/users/import.html", **values), invalid.status
    return page(
        "console/users/import.html",
        report=report,
        bad=report.bad[:SHOWN_BAD_ROWS],
        roles=sorted(report.missing_roles.items(), key=lambda role: -role[1])[:SHOWN_NEW_ROLES],
        table=table if only_check else report.rest if report.bad else "",
        error=None,
        checked=only_check,
        guessed=guessed and (guessed, _first_accented(table)),
    )


def _first_accented(table: str) -> str:
    """A piece of the table by which somebody sees whether its encoding was guessed right."""
    found = re.search(r"[^\x00-\x7f]", table)
    if found is None:
        return ""
    around = table[max(0, found.start() - 30) : found.end() + 30]
    return next((line for line in around.splitlines() if not line.isascii()), "")


def _form(typed: dict[str, Any], errors: dict[str, str]) -> str:
    return page("console/users/new.html", form=typed, errors=errors, roles=_known_roles(typed["roles"]))


def _on_form(problem: Invalid | Conflict, field: str) -> dict[str, str]:
    """The mistakes by field; what is in conflict is told at `field`."""
    return problem.fields if isinstance(problem, Invalid) else {field: str(problem)}


def _told(
    user: User,
    *,
    password: str | None = None,
    errors: dict[str, str] | None = None,
    name: str | None = None,
    roles: list[str] | None = None,
) -> dict[str, Any]:
    """What the page of one person is drawn from; `name` and `roles` are what was typed."""
    return {
        "user": user,
        "name": user.name if name is None else name,
        "roles": _known_roles(user.roles if roles is None else roles),
        "unsent": account_rows.unsent_counts(user.id),
        "invitation": invitations.of(user.id),
        "may": sorted(permissions.of_roles(user.roles)),
        "sessions": users.open_sessions(user.id),
        "tokens": [token for token, _ in users.tokens(user.id)],
        "identity": users.identity_at(user.id, _issuer()),
        "is_online": PRESENCE.current.is_online(user.id),
        "password": password,
        "errors": errors or {},
        "notices": get_flashed_messages(),
    }


def _issuer() -> str:
    """The organisation's provider; empty when there is none."""
    return SETTINGS.current.oidc_issuer or ""


def _known_roles(chosen: Any) -> list[dict[str, Any]]:
    """Every role that there is or that the console knows, with what it allows there."""
    names = sorted({*users.role_names(), *CONSOLE_ROLES, *chosen}, key=lambda name: (name not in CONSOLE_ROLES, name))
    return [
        {
            "name": name,
            "chosen": name in chosen,
            "may": [str(p) for p in Permission if p in permissions.of_roles([name])],
        }
        for name in names
    ]


def _roles() -> list[str]:
    """The roles ticked, and those typed into the field for new ones."""
    return [*request.form.getlist("roles"), *request.form.get("newRoles", "").replace(",", " ").split()]


def _done(user_id: int, sentence: str):
    flash(sentence)
    return redirect(url_for("people.one", user_id=user_id), 303)


def _found(user_id: int) -> User:
    user = users.by_id(user_id)
    if user is None:
        raise NotFound("There is no such person.")
    if user.deleted_at:
        raise NotFound("This account was deleted.")
    return user


def _filters() -> Filters:
    state = request.args.get("state", "")
    return Filters(_text("q", 100), _text("role", 64), state if state in _STATES else "")


def _text(name: str, most: int) -> str:
    return request.args.get(name, "").strip()[:most].replace("\0", "")
