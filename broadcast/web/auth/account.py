"""The user's own account: password, e-mail address, browsers with push messages, and sessions."""

import flask
from flask import Blueprint, request

from broadcast.actions import accounts, sessions
from broadcast.actions import email_addresses as email_actions
from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.channels.email import EMAIL
from broadcast.channels.protocol import Accepted
from broadcast.domain import clock
from broadcast.store import email_addresses, push_subscriptions, users
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import redirect_to, render_page
from broadcast.web.core.request_parsing import to_form_errors

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


@blueprint.post("/email")
@allow("account")
def change_email():
    """Send a link to the address; it is used once that link is followed."""
    identity, typed = current_identity(), request.form.get("email", "")
    try:
        address = email_actions.request_change(typed, by=identity.actor, now=clock.now())
    except (Invalid, Conflict) as problem:
        return _render_account(to_form_errors(problem, "email"), email=typed), problem.status
    outcome = EMAIL.current.send_confirmation(identity.id, address)
    if isinstance(outcome, Accepted):
        return redirect_to("account.index", f"A link was sent to {address}. Open it to confirm the address.")
    return redirect_to("account.index", f"The link could not be sent. {outcome.reason}")


@blueprint.post("/email/remove")
@allow("account")
def remove_email():
    email_actions.remove(by=current_identity().actor, now=clock.now())
    return redirect_to("account.index", "Your address was removed. You get no e-mail.")


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


def _render_account(errors: dict[str, str], *, email: str | None = None) -> str:
    identity = current_identity()
    known = email_addresses.get(identity.id)
    return render_page(
        "auth/account.html",
        email=known,
        typed_email=email if email is not None else known and (known.pending_address or known.address) or "",
        browsers=push_subscriptions.list_of_user(identity.id),
        sessions=users.list_open_sessions(identity.id),
        here=identity.session_id,
        tokens=[token for token, _ in users.list_tokens(identity.id)],
        errors=errors,
    )
