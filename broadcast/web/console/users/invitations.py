"""Invitations: created in bulk and shown once, revoked, and accepted by a user without a session through the link."""

from datetime import timedelta

from flask import Blueprint, Response, request, url_for

from broadcast.actions import invitations as actions
from broadcast.actions.audiences import resolve_users
from broadcast.actions.invitations import IssuedInvitation
from broadcast.base.errors import Invalid
from broadcast.base.numbers import parse_number
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.store import invitations
from broadcast.web.auth import login
from broadcast.web.console.broadcasts import compose_form
from broadcast.web.core.csv_download import stream_csv
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import redirect_to, render_page
from broadcast.web.core.request_parsing import parse_ids
from broadcast.web.core.resumable_forms import raise_if_resumed

blueprint = Blueprint("invitations", __name__)

PAGE_SIZE = 50
MAX_LINKS_SHOWN = 200  # links on a page; more are in the file only


@blueprint.get("/console/people/invitations")
@allow(Permission.PEOPLE)
def listing():
    return _render_list()


@blueprint.post("/console/people/invitations")
@allow(Permission.PEOPLE, is_resumable=True, is_large=True)
def invite():
    """Invite the ticked users, the named ones, or all who cannot sign in yet. The links are shown only this once."""
    form = request.form
    try:
        raise_if_resumed()
        if SETTINGS.current.password_sign_in == "administrators":
            problem = "Only administrators can use a password. Other users sign in through your organisation."
            raise Invalid({"ids": problem})
        valid_for, by = timedelta(days=SETTINGS.current.invitation_days), current_identity().actor
        created = actions.invite_users(_read_user_ids(), valid_for=valid_for, by=by, now=clock.now())
    except Invalid as invalid:
        return _render_list(typed=form.get("usernames", ""), error=str(invalid) or None), invalid.status
    if form.get("as") == "csv" or len(created) > MAX_LINKS_SHOWN:
        return _render_csv(created)
    return render_page("console/users/invited.html", made=[(one, _build_link(one.token)) for one in created])


@blueprint.post("/console/people/<int:user_id>/invitation/revoke")
@allow(Permission.PEOPLE)
def revoke(user_id: int):
    actions.revoke_invitation(user_id, by=current_identity().actor, now=clock.now())
    notice = "Invitation revoked."
    if request.form.get("back") == "list":
        return redirect_to("invitations.listing", notice)
    return redirect_to("people.detail", notice, user_id=user_id)


@blueprint.get("/invitation/<token>")
@allow("anyone")
def show(token: str):
    return _render_acceptance(token, {})


@blueprint.post("/invitation/<token>")
@allow("anyone")
def accept(token: str):
    password, now = request.form.get("password", ""), clock.now()
    try:
        if password != request.form.get("again"):
            raise Invalid({"again": "The passwords do not match."})
        username = actions.accept_invitation(token, password, now=now)
    except Invalid as invalid:
        return _render_acceptance(token, invalid.fields), invalid.status
    login.sign_in_with_password(username, password, now=now)
    return redirect_to("inbox.index")


def _render_acceptance(token: str, errors: dict[str, str]) -> str:
    guest = actions.get_invitee(token, now=clock.now())
    return render_page("auth/invitation.html", guest=guest, token=token, errors=errors)


def _render_list(*, typed: str = "", error: str | None = None) -> str:
    fetched = invitations.list_page(after=parse_number(request.args.get("after")) or 0, limit=PAGE_SIZE + 1)
    return render_page(
        "console/users/invitations.html",
        rows=fetched[:PAGE_SIZE],
        next=fetched[PAGE_SIZE - 1].user.id if len(fetched) > PAGE_SIZE else None,
        count=invitations.count(),
        uninvited=invitations.count_uninvited(),
        days=SETTINGS.current.invitation_days,
        typed=typed,
        error=error,
    )


def _read_user_ids() -> list[int]:
    """User ids. Raises Invalid for unknown usernames."""
    form = request.form
    if form.get("whom") == "all":
        return invitations.list_uninvited_ids(limit=actions.MAX_INVITATIONS)
    ids = parse_ids(form.getlist("ids"))
    names = [name.lower() for name in compose_form.split_usernames(form.get("usernames", "").replace("\0", " "))]
    problems: dict[str, str] = {}
    ids += resolve_users(names, "usernames", problems)
    if problems:
        raise Invalid(problems)
    return ids


def _build_link(token: str) -> str:
    return url_for("invitations.show", token=token, _external=True)


def _render_csv(created: list[IssuedInvitation]) -> Response:
    rows = [(one.username, one.name, _build_link(one.token), one.expires_at) for one in created]
    return stream_csv("invitations", ("username", "name", "link", "good until"), lambda _: (rows, None))
