"""The user's own account: password and sessions."""

import flask
from flask import Blueprint, request

from broadcast.actions import accounts, sessions
from broadcast.base.errors import Invalid, NotFound
from broadcast.domain import clock
from broadcast.store import users
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import redirect_to, render_page

blueprint = Blueprint("account", __name__, url_prefix="/account")


@blueprint.get("")
@allow("account")
def index():
    return _render_account({})


@blueprint.post("/password")
@allow("account")
def change_password():
    form, identity = request.form, current_identity()
    try:
        if form.get("new") != form.get("again"):
            raise Invalid({"again": "The passwords do not match."})
        current, new, kept_id = form.get("current", ""), form.get("new", ""), identity.session_id
        flask.session["token"] = accounts.change_password(
            current, new, by=identity.actor, now=clock.now(), kept_session_id=kept_id
        )
    except Invalid as invalid:
        fields = {"new" if name == "password" else name: sentence for name, sentence in invalid.fields.items()}
        return _render_account(fields), invalid.status
    return redirect_to("account.index", "Password changed. You are signed out everywhere else.")


@blueprint.post("/sessions/<int:session_id>/end")
@allow("account")
def end_session(session_id: int):
    """Only the user's own sessions, even for those who may end others' on the console."""
    identity = current_identity()
    if session_id not in {row.id for row in users.list_open_sessions(identity.id)}:
        raise NotFound("There is no such session.")
    sessions.end_session(session_id, by=identity.actor, now=clock.now())
    return redirect_to("account.index", "Session ended.")


@blueprint.post("/sessions/end-others")
@allow("account")
def end_others():
    identity = current_identity()
    sessions.end_sessions(identity.id, by=identity.actor, now=clock.now(), kept_session_id=identity.session_id)
    return redirect_to("account.index", "You are signed out everywhere else.")


def _render_account(errors: dict[str, str]) -> str:
    identity = current_identity()
    return render_page(
        "auth/account.html",
        sessions=users.list_open_sessions(identity.id),
        here=identity.session_id,
        tokens=[token for token, _ in users.list_tokens(identity.id)],
        errors=errors,
    )
