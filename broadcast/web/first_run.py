"""First run in the browser: with the code that was printed at the start, somebody makes the first administrator.

Closed for good as soon as there is one. Without a code the page only says where to find it.
"""

from flask import Blueprint, redirect, request, url_for

from broadcast.actions import first_run as actions
from broadcast.actions import people
from broadcast.domain import clock
from broadcast.errors import Invalid
from broadcast.store import first_run
from broadcast.web import auth, limits
from broadcast.web.identity import allow
from broadcast.web.render import page

blueprint = Blueprint("first_run", __name__, url_prefix="/setup")


@blueprint.get("", strict_slashes=False)
@allow("anyone")
def show():
    if first_run.has_administrator():
        return redirect(url_for("auth.login"), 303)
    return _form({}, {})


@blueprint.post("", strict_slashes=False)
@allow("anyone")
def make():
    form, now = request.form, clock.now()
    username, password = form.get("username", ""), form.get("password", "")
    try:
        actions.make_administrator(form.get("code", ""), username, password, name=form.get("name"), now=now)
    except Invalid as invalid:
        return _form(form, invalid.fields), invalid.status
    token, _ = people.sign_in(
        username,
        password,
        address=limits.address(),
        agent=request.user_agent.string,
        now=now,
        replaces=auth.present_token(),
    )
    auth.enter(token)
    return redirect(url_for("console.overview.overview"), 303)


def _form(form, errors: dict[str, str]) -> str:
    typed = {name: form.get(name, "") for name in ("code", "username", "name")}
    return page("setup.html", form=typed, errors=errors)
