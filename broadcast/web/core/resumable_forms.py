"""Forms whose text survives what comes between: an ended session, a page that was open for too long, a limit, a busy database.

The CSRF token of every form says whose page it stood in, and is signed. So a form that is refused can be given back: in the
answer itself, as hidden fields, and only to the person who wrote it. Nothing of it is done before they press its button again:
a form that comes back is drawn (`raise_if_resumed`), and CSRF is demanded as ever. Passwords are never given back.
"""

import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import flask
from flask import Flask, Response, current_app, g, request
from itsdangerous import BadData, URLSafeTimedSerializer

from broadcast.base.errors import Invalid

_CSRF_FIELD = "csrf_token"  # the form's field, and the session's
_MAX_SIGNED_BYTES = 200 * 1024  # what the sign-in form can carry
_MAX_UNAUTHENTICATED_BYTES = 256 * 1024  # of a form that is read before it is known who asks
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
    """A form that can be given back: where it goes, whose it is, and its fields."""

    path: str
    user_id: int
    fields: list[tuple[str, str]]


class FormResumed(Invalid):
    """A form comes back to be gone on with: it is drawn as it was typed, and nothing is wrong with it."""

    status = 200

    def __init__(self) -> None:
        super().__init__({})


def resumable_form(view: Callable) -> Callable:
    """Say that a view draws its form when it is posted with `resume`: its text may then be given back."""
    view.is_resumable = True
    return view


def raise_if_resumed() -> None:
    """Raises Resumed for a form that is only to be drawn once more; a view handles it as it handles mistakes."""
    if request.form.get("resume") == "yes":
        raise FormResumed


def bind_csrf_token(user_id: int) -> None:
    """Let the CSRF tokens of this session say whose pages they stand in; a session that has such tokens keeps them."""
    if _CSRF_FIELD not in flask.session:
        flask.session[_CSRF_FIELD] = f"{user_id}-{secrets.token_hex(20)}"


def capture_from_signed_out() -> SavedForm | None:
    """The posted form of somebody who has no session any more; None when it cannot be given back."""
    if not _is_resumable() or not 0 < (request.content_length or 0) <= _MAX_UNAUTHENTICATED_BYTES:
        return None
    if request.mimetype != "multipart/form-data" and request.get_data(cache=True).count(b"&") > _MAX_FIELDS:
        return None
    author_id = _read_csrf_author()
    return author_id and _capture_form(author_id)


def capture_from_current_user() -> SavedForm | None:
    """The posted form of the person asking, which was refused; None when it cannot be given back, or is somebody else's."""
    identity = g.get("identity")
    if identity is None or identity.session_id is None or not _is_resumable():
        return None
    return _capture_form(identity.id) if _read_csrf_author() == identity.id or g.get("csrf_valid") else None


def sign(saved_form: SavedForm) -> str:
    """A form as one field of the sign-in form; empty when it is too long for that."""
    text = _make_serializer("kept-form").dumps(saved_form)
    return text if len(text) <= _MAX_SIGNED_BYTES else ""


def read(text: str | None) -> SavedForm | None:
    """What `sign` made within the last day."""
    try:
        path, user_id, fields = _make_serializer("kept-form").loads(text or "", max_age=_DAY_SECONDS)
    except BadData:
        return None
    return SavedForm(path, user_id, [(name, value) for name, value in fields])


def _replace_redirect_for_script(response: Response) -> Response:
    """The page's script posts such a form and then goes where it is sent: it cannot read where a redirect leads."""
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
    """Whose page the form stood in, as its CSRF token says."""
    token = request.form.get(_CSRF_FIELD) or request.headers.get("X-CSRFToken", "")
    try:
        secret: Any = _make_serializer("wtf-csrf-token").loads(token)
    except BadData:
        return None
    user_id, separator, _ = str(secret).partition("-")
    return int(user_id) if separator and user_id.isascii() and user_id.isdigit() else None


def _make_serializer(salt: str) -> URLSafeTimedSerializer:
    keys = [*(current_app.config["SECRET_KEY_FALLBACKS"] or ()), current_app.secret_key]  # the newest signs
    return URLSafeTimedSerializer(keys, salt=salt)
