"""Keeps the text of a form across an expired session, a stale page, a rate limit or a busy database.

The CSRF token of every form is signed and names the user whose page had it. So a refused form can be returned as hidden
fields of the response, and only to the user who wrote it. Nothing runs before the user presses its button again: a
resumed form is only rendered (`raise_if_resumed`), and CSRF protection applies as always. Passwords are never returned.
"""

import secrets
from typing import Any, NamedTuple

import flask
from flask import Flask, Response, current_app, g, request
from itsdangerous import BadData, URLSafeTimedSerializer

from broadcast.base.errors import Invalid
from broadcast.base.numbers import parse_number

_CSRF_FIELD = "csrf_token"  # the name in the form and in the session
_MAX_SIGNED_BYTES = 200 * 1024  # what fits into the sign-in form
_MAX_UNAUTHENTICATED_BYTES = 256 * 1024  # of a form that is read before authentication
_MAX_FIELDS = 2000
_DAY_SECONDS = 86400
_EXCLUDED_FIELDS = {
    _CSRF_FIELD,
    "resume",
    "do",
    "act",
    "check",
    "as",
    "password",
    "current",
    "new",
    "again",
    "understood",
    "typedCount",
}


def init_app(app: Flask) -> None:
    app.after_request(_replace_redirect_for_script)


class SavedForm(NamedTuple):
    """A form that can be returned: its target, its user, and its fields."""

    path: str
    user_id: int
    fields: list[tuple[str, str]]


class FormResumed(Invalid):
    """A resumed form, to be rendered as typed. Nothing is wrong with it."""

    status = 200

    def __init__(self) -> None:
        super().__init__({})


def raise_if_resumed() -> None:
    """Raise FormResumed for a form that is only to be rendered again; a view handles it like invalid input."""
    if request.form.get("resume") == "yes":
        raise FormResumed


def bind_csrf_token(user_id: int) -> None:
    """Bind this session's CSRF tokens to the user; a session that has bound tokens keeps them."""
    if _CSRF_FIELD not in flask.session:
        flask.session[_CSRF_FIELD] = f"{user_id}-{secrets.token_hex(20)}"


def capture_from_signed_out() -> SavedForm | None:
    """The posted form of a user whose session has ended; None when it cannot be returned."""
    if not _is_resumable() or not 0 < (request.content_length or 0) <= _MAX_UNAUTHENTICATED_BYTES:
        return None
    if request.mimetype != "multipart/form-data" and request.get_data(cache=True).count(b"&") > _MAX_FIELDS:
        return None
    author_id = _read_csrf_author()
    return author_id and _capture_form(author_id)


def capture_from_current_user() -> SavedForm | None:
    """The refused form of the current user; None when it cannot be returned, or is another user's."""
    identity = g.get("identity")
    if identity is None or identity.session_id is None or not _is_resumable():
        return None
    return _capture_form(identity.id) if _read_csrf_author() == identity.id or g.get("csrf_valid") else None


def sign(saved_form: SavedForm) -> str:
    """Encode a form as one field of the sign-in form; empty when it is too long for that."""
    text = _make_serializer("kept-form").dumps(saved_form)
    return text if len(text) <= _MAX_SIGNED_BYTES else ""


def read(text: str | None) -> SavedForm | None:
    """Decode what `sign` made within the last day."""
    try:
        path, user_id, fields = _make_serializer("kept-form").loads(text or "", max_age=_DAY_SECONDS)
    except BadData:
        return None
    return SavedForm(path, user_id, [(name, value) for name, value in fields])


def _replace_redirect_for_script(response: Response) -> Response:
    """Replace a redirect in the response to the page's script, which cannot read where a redirect leads."""
    if request.headers.get("X-Form") == "script" and response.location and response.status_code == 303:
        response.headers["X-Location"] = response.headers.pop("Location")
        response.status_code, response.data = 204, b""
    return response


def _is_resumable() -> bool:
    view = current_app.view_functions.get(request.endpoint or "")
    return request.method == "POST" and getattr(view, "is_resumable", False)


def _capture_form(user_id: int) -> SavedForm:
    fields = [(name, value) for name, value in request.form.items(multi=True) if name not in _EXCLUDED_FIELDS]
    return SavedForm(request.path, user_id, fields)


def _read_csrf_author() -> int | None:
    """The user whose page had the form, by its CSRF token."""
    token = request.form.get(_CSRF_FIELD) or request.headers.get("X-CSRFToken", "")
    try:
        secret: Any = _make_serializer("wtf-csrf-token").loads(token)
    except BadData:
        return None
    user_id, separator, _ = str(secret).partition("-")
    return parse_number(user_id) if separator else None


def _make_serializer(salt: str) -> URLSafeTimedSerializer:
    keys = [*(current_app.config["SECRET_KEY_FALLBACKS"] or ()), current_app.secret_key]  # the last key signs
    return URLSafeTimedSerializer(keys, salt=salt)
