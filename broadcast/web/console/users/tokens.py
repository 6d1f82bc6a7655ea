"""Tokens for programs: whose, for what, until when, last used; made and revoked."""

from datetime import timedelta

from flask import Blueprint, redirect, request, url_for

from broadcast.actions import users as actions
from broadcast.actions.users import SCOPES
from broadcast.base.errors import Invalid
from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.store import users
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import page
from broadcast.web.core.resumable_forms import pause_if_resumed, resumable

blueprint = Blueprint("tokens", __name__, url_prefix="/console/tokens")

PAGE = 50
LIVES_DAYS = {"7": 7, "30": 30, "90": 90, "365": 365, "never": None}


@blueprint.get("")
@allow(Permission.PEOPLE)
def listing():
    return _listing({"username": request.args.get("user", "")[:64], "label": "", "scopes": ["inbox"], "days": "90"}, {})


@blueprint.post("")
@resumable
@allow(Permission.PEOPLE)
def create():
    """The answer is the page itself, not a redirect: the token is shown this once and kept nowhere."""
    typed = {name: request.form.get(name, "").strip() for name in ("username", "label", "days")}
    typed["scopes"] = request.form.getlist("scopes")
    try:
        pause_if_resumed()
        token = _create(typed)
    except Invalid as invalid:
        return _listing(typed, invalid.fields), invalid.status
    return _listing({"username": "", "label": "", "scopes": ["inbox"], "days": "90"}, {}, token=token)


@blueprint.post("/<int:token_id>/revoke")
@allow(Permission.PEOPLE)
def revoke(token_id: int):
    actions.revoke_token(token_id, by=me().actor, now=clock.now())
    return redirect(url_for("tokens.listing"), 303)


def _create(typed: dict) -> str:
    person = users.by_username(typed["username"])
    if person is None:
        raise Invalid({"username": "There is nobody with this username."})
    if typed["days"] not in LIVES_DAYS:
        raise Invalid({"days": "Choose how long it is valid."})
    days = LIVES_DAYS[typed["days"]]
    valid_for = timedelta(days=days) if days else None
    return actions.create_token(
        person.id, scopes=typed["scopes"], label=typed["label"], by=me().actor, now=clock.now(), valid_for=valid_for
    )


def _listing(form: dict, errors: dict[str, str], *, token: str | None = None) -> str:
    before = request.args.get("before", "")
    found = users.tokens(
        before=int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None, limit=PAGE + 1
    )
    return page(
        "console/users/tokens.html",
        rows=found[:PAGE],
        next=found[PAGE - 1][0].id if len(found) > PAGE else None,
        form=form,
        errors=errors,
        token=token,
        scopes=SCOPES,
        lives=LIVES_DAYS,
    )
