"""Links in mails: confirm an address, and no more e-mail.

The signed token in the link says whose it is, so that no session is needed. Mail programs and scanners open links by
themselves, so a GET only shows a page with a button.
"""

from flask import Blueprint
from flask.typing import ResponseReturnValue

from broadcast.actions import email_addresses as actions
from broadcast.base.errors import NotFound
from broadcast.channels.email import EMAIL
from broadcast.domain import clock
from broadcast.web.core.identity import allow
from broadcast.web.core.rendering import render_page

blueprint = Blueprint("email", __name__, url_prefix="/email")


@blueprint.get("/confirm/<token>")
@allow("anyone")
def show_confirm(token: str):
    _, address = _read_confirm_token(token)
    return _render("confirm", address=address)


@blueprint.post("/confirm/<token>")
@allow("link")
def confirm(token: str):
    user_id, address = _read_confirm_token(token)
    if not actions.confirm(user_id, address, now=clock.now()):
        raise NotFound("Another address was entered since. Use the link in the newest mail.")
    return _render("confirmed", address=address)


@blueprint.get("/unsubscribe/<token>")
@allow("anyone")
def show_unsubscribe(token: str):
    _, what = _read_unsubscribe_token(token)
    return _render("unsubscribe", what=what)


@blueprint.post("/unsubscribe/<token>")
@allow("link")
def unsubscribe(token: str):
    """The button of the page, and the one-click POST of mail programs (RFC 8058), which sends no cookies."""
    user_id, what = _read_unsubscribe_token(token)
    actions.unsubscribe(user_id, what, now=clock.now())
    return _render("unsubscribed", what=what)


def _read_confirm_token(token: str) -> tuple[int, str]:
    values = EMAIL.current.links.read_confirm_token(token)
    if values is None:
        raise NotFound("This link is no longer valid. Ask for a new one under My account.")
    return values


def _read_unsubscribe_token(token: str) -> tuple[int, str]:
    values = EMAIL.current.links.read_unsubscribe_token(token)
    if values is None:
        raise NotFound("This link is not valid. You can choose what you get by e-mail under Preferences.")
    return values


def _render(step: str, *, address: str = "", what: str = "email") -> ResponseReturnValue:
    return render_page("auth/email_link.html", step=step, address=address, what=what)
