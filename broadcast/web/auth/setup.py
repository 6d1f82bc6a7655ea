"""Initial setup in the browser: the code printed at start lets somebody create the first administrator.

Closed for good once an administrator exists. Without a code the page only says where to find it.
"""

from flask import Blueprint, request

from broadcast.actions import accounts
from broadcast.base.errors import Invalid
from broadcast.domain import clock
from broadcast.store import users
from broadcast.web.auth import login
from broadcast.web.core.identity import allow
from broadcast.web.core.rendering import redirect_to, render_page

blueprint = Blueprint("first_run", __name__, url_prefix="/setup")


@blueprint.get("", strict_slashes=False)
@allow("anyone")
def show():
    if users.has_administrator():
        return redirect_to("auth.login")
    return _render_setup({}, {})


@blueprint.post("", strict_slashes=False)
@allow("anyone")
def create_administrator():
    form, now = request.form, clock.now()
    username, password = form.get("username", ""), form.get("password", "")
    try:
        accounts.create_first_administrator(form.get("code", ""), username, password, name=form.get("name"), now=now)
    except Invalid as invalid:
        return _render_setup(form, invalid.fields), invalid.status
    login.sign_in_with_password(username, password, now=now)
    return redirect_to("console.overview.overview")


def _render_setup(form, errors: dict[str, str]) -> str:
    typed = {name: form.get(name, "") for name in ("code", "username", "name")}
    return render_page("auth/setup.html", form=typed, errors=errors)
