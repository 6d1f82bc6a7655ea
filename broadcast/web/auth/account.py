"""One's own account: the password, and where one is signed in."""

import flask
from flask import Blueprint, flash, get_flashed_messages, redirect, request, url_for

from broadcast.actions import users as actions
from broadcast.base.errors import Invalid, NotFound
from broadcast.domain import clock
from broadcast.store import users
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import page

blueprint = Blueprint("account", __name__, url_prefix="/account")


@blueprint.get("")
@allow("account")
def index():
    return _page({})


@blueprint.post("/password")
@allow("account")
def change_password():
    form, identity = request.form, me()
    try:
        if form.get("new") != form.get("again"):
            raise Invalid({"again": "This is not the same password as above."})
        flask.session["token"] = actions.change_password(
            form.get("current", ""), form.get("new", ""), by=identity.actor, now=clock.now(), keep=identity.session_id
        )
    except Invalid as invalid:
        fields = {"new" if name == "password" else name: sentence for name, sentence in invalid.fields.items()}
        return _page(fields), invalid.status
    return _done("Your password is changed. You are signed out everywhere else.")


@blueprint.post("/sessions/<int:session_id>/end")
@allow("account")
def end_session(session_id: int):
    """Only one's own, also for those who may end others' on the console."""
    identity = me()
    if session_id not in {row.id for row in users.open_sessions(identity.id)}:
        raise NotFound("There is no such session.")
    actions.end_session(session_id, by=identity.actor, now=clock.now())
    return _done("That session is ended.")


@blueprint.post("/sessions/end-others")
@allow("account")
def end_others():
    identity = me()
    actions.end_sessions(identity.id, by=identity.actor, now=clock.now(), keep=identity.session_id)
    return _done("You are signed out everywhere else.")


def _page(errors: dict[str, str]) -> str:
    identity = me()
    return page(
        "auth/account.html",
        sessions=users.open_sessions(identity.id),
        here=identity.session_id,
        tokens=[token for token, _ in users.tokens(identity.id)],
        errors=errors,
        notices=get_flashed_messages(),
    )


def _done(sentence: str):
    flash(sentence)
    return redirect(url_for("account.index"), 303)
