"""API tokens: owner, scopes, expiry, last use; created and revoked."""

from datetime import timedelta

from flask import Blueprint, request

from broadcast.actions import tokens
from broadcast.actions.tokens import TOKEN_SCOPES
from broadcast.base.errors import Invalid
from broadcast.base.numbers import parse_number
from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.store import users
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import redirect_to, render_page
from broadcast.web.core.resumable_forms import raise_if_resumed

blueprint = Blueprint("tokens", __name__, url_prefix="/console/tokens")

PAGE_SIZE = 50
_EMPTY_FORM = {"username": "", "label": "", "scopes": ["inbox"], "days": "90"}
VALIDITY_DAYS = {"7": 7, "30": 30, "90": 90, "365": 365, "never": None}


@blueprint.get("")
@allow(Permission.PEOPLE)
def listing():
    return _render_list(_EMPTY_FORM | {"username": request.args.get("user", "")[:64]}, {})


@blueprint.post("")
@allow(Permission.PEOPLE, is_resumable=True)
def create():
    """Renders the page instead of a redirect: the token is shown only once and not stored."""
    typed = {name: request.form.get(name, "").strip() for name in ("username", "label", "days")}
    typed["scopes"] = request.form.getlist("scopes")
    try:
        raise_if_resumed()
        token = _create_token(typed)
    except Invalid as invalid:
        return _render_list(typed, invalid.fields), invalid.status
    return _render_list(_EMPTY_FORM, {}, token=token)


@blueprint.post("/<int:token_id>/revoke")
@allow(Permission.PEOPLE)
def revoke(token_id: int):
    tokens.revoke_token(token_id, by=current_identity().actor, now=clock.now())
    return redirect_to("tokens.listing")


def _create_token(typed: dict) -> str:
    user = users.get_by_username(typed["username"])
    if user is None:
        raise Invalid({"username": "There is no user with this username."})
    if typed["days"] not in VALIDITY_DAYS:
        raise Invalid({"days": "Choose an expiration."})
    days = VALIDITY_DAYS[typed["days"]]
    valid_for = timedelta(days=days) if days else None
    by, scopes, label = current_identity().actor, typed["scopes"], typed["label"]
    return tokens.create_token(user.id, scopes=scopes, label=label, by=by, now=clock.now(), valid_for=valid_for)


def _render_list(form: dict, errors: dict[str, str], *, token: str | None = None) -> str:
    fetched = users.list_tokens(before=parse_number(request.args.get("before")), limit=PAGE_SIZE + 1)
    return render_page(
        "console/users/tokens.html",
        rows=fetched[:PAGE_SIZE],
        next=fetched[PAGE_SIZE - 1][0].id if len(fetched) > PAGE_SIZE else None,
        form=form,
        errors=errors,
        token=token,
        scopes=TOKEN_SCOPES,
        lives=VALIDITY_DAYS,
    )
