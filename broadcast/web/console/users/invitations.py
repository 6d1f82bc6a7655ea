"""Invitations: made in bulk and told once, revoked, and accepted by whoever holds the link, who has no session yet."""

from datetime import timedelta

from flask import Blueprint, Response, current_app, flash, get_flashed_messages, redirect, request, url_for

from broadcast.actions import invitations as actions
from broadcast.actions import users as people_actions
from broadcast.actions.invitations import Invited
from broadcast.base.errors import Invalid
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.domain.signed_csv import SignedCsv
from broadcast.store import invitations, users
from broadcast.web.auth import login
from broadcast.web.console.broadcasts import compose_form
from broadcast.web.core import limits
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import page
from broadcast.web.core.resumable_forms import pause_if_resumed, resumable
from broadcast.web.core.security_headers import large

blueprint = Blueprint("invitations", __name__)

PAGE = 50
SHOWN = 200  # links told on a page; more of them as a file alone
_UNKNOWN = 5  # usernames told in one sentence


@blueprint.get("/console/people/invitations")
@allow(Permission.PEOPLE)
def listing():
    return _list()


@blueprint.post("/console/people/invitations")
@large
@resumable
@allow(Permission.PEOPLE)
def invite():
    """For those ticked, those named, or all who could not sign in yet. The answer tells the links this once."""
    form = request.form
    try:
        pause_if_resumed()
        _refuse_without_passwords()
        made = actions.invite(_chosen(), valid_for=_valid_for(), by=me().actor, now=clock.now())
    except Invalid as invalid:
        return _list(typed=form.get("usernames", ""), error=str(invalid) or None), invalid.status
    if form.get("as") == "csv" or len(made) > SHOWN:
        return _csv(made)
    return page("console/users/invited.html", made=[(one, _link(one.token)) for one in made])


@blueprint.post("/console/people/<int:user_id>/invitation/revoke")
@allow(Permission.PEOPLE)
def revoke(user_id: int):
    actions.revoke(user_id, by=me().actor, now=clock.now())
    flash("The invitation is revoked.")
    if request.form.get("back") == "list":
        return redirect(url_for("invitations.listing"), 303)
    return redirect(url_for("people.one", user_id=user_id), 303)


@blueprint.get("/invitation/<token>")
@allow("anyone")
def show(token: str):
    return _accept_page(token, {})


@blueprint.post("/invitation/<token>")
@allow("anyone")
def accept(token: str):
    password, now = request.form.get("password", ""), clock.now()
    try:
        if password != request.form.get("again"):
            raise Invalid({"again": "This is not the same password as above."})
        username = actions.accept(token, password, now=now)
    except Invalid as invalid:
        return _accept_page(token, invalid.fields), invalid.status
    session_token, _ = people_actions.sign_in(
        username, password, address=limits.address(), agent=request.user_agent.string, now=now
    )
    login.enter(session_token)
    return redirect(url_for("inbox.index"), 303)


def _accept_page(token: str, errors: dict[str, str]) -> str:
    return page("auth/invitation.html", guest=actions.look_up(token, now=clock.now()), token=token, errors=errors)


def _list(*, typed: str = "", error: str | None = None) -> str:
    after = request.args.get("after", "")
    found = invitations.page(after=int(after) if after.isdecimal() and len(after) < 19 else 0, limit=PAGE + 1)
    return page(
        "console/users/invitations.html",
        rows=found[:PAGE],
        next=found[PAGE - 1].user.id if len(found) > PAGE else None,
        count=invitations.count(),
        uninvited=invitations.uninvited_count(),
        days=SETTINGS.current.invitation_days,
        typed=typed,
        error=error,
        notices=get_flashed_messages(),
    )


def _chosen() -> list[int]:
    """User ids. Raises Invalid for usernames that are nobody's."""
    form = request.form
    if form.get("whom") == "all":
        return invitations.uninvited_ids(limit=actions.MOST_AT_ONCE)
    ids = [int(text) for text in form.getlist("ids") if text.isascii() and text.isdigit() and len(text) < 19]
    names = [name.lower() for name in compose_form.split_names(form.get("usernames", "").replace("\0", " "))]
    found = users.ids_by_name(names)
    if unknown := [name for name in dict.fromkeys(names) if name not in found]:
        more = f" and {len(unknown) - _UNKNOWN} more" if len(unknown) > _UNKNOWN else ""
        told = ", ".join(name[:64] for name in unknown[:_UNKNOWN])
        raise Invalid({"usernames": f"There is nobody called {told}{more}, or the account is disabled."})
    return [*ids, *found.values()]


def _refuse_without_passwords() -> None:
    if SETTINGS.current.password_sign_in == "administrators":
        raise Invalid({"ids": "Only administrators have passwords here: your organisation signs the others in."})


def _valid_for() -> timedelta:
    return timedelta(days=SETTINGS.current.invitation_days)


def _link(token: str) -> str:
    return url_for("invitations.show", token=token, _external=True)


def _csv(made: list[Invited]) -> Response:
    file = SignedCsv(current_app.secret_key)
    rows = [(one.username, one.name, _link(one.token), clock.to_wire(one.expires_at)) for one in made]
    body = file.encode([("username", "name", "link", "good until")]) + file.encode(rows) + file.end()
    headers = {"Content-Disposition": f'attachment; filename="invitations-{clock.now():%Y-%m-%d}.csv"'}
    return Response(body, mimetype="text/csv", headers=headers)
