"""Error responses: a page for browsers, a short text for htmx, `application/problem+json` (RFC 9457) for programs.

A stream is different: 429 or 503 would end a browser's EventSource for good, so it gets 200 with one block that says
when to reconnect.
"""

from collections.abc import Callable
from typing import Any

import structlog
from flask import Flask, Response, current_app, g, jsonify, render_template, request
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, SecurityError

from broadcast.base.app_parts import AppPart
from broadcast.base.errors import (
    BroadcastError,
    CommitOutcomeUnknown,
    ConfirmationRequired,
    Conflict,
    Invalid,
    NotSignedIn,
    TemporarilyUnavailable,
)
from broadcast.store.availability import is_unavailable
from broadcast.streams import sse
from broadcast.web.core import resumable_forms
from broadcast.web.core.bounded_request import TooManyFields, TooManyParameters
from broadcast.web.core.rendering import redirect_to

_log = structlog.get_logger(__name__)

_UNREPEATED_FIELDS = {"csrf_token", "understood", "typedCount", "password"}  # must be entered again
_TRANSIENT_STATUSES = {409, 429, 500, 503, 504}  # a form refused with these may succeed a moment later
_DETAILS_BY_STATUS = {
    400: "The request could not be understood.",
    404: "There is nothing at this address.",
    405: "This address does not accept this request method.",
    415: "Send application/json.",
}


def init_app(app: Flask) -> None:
    app.register_error_handler(BroadcastError, _handle_broadcast_error)
    app.register_error_handler(DBAPIError, _handle_database_error)
    app.register_error_handler(PoolTimeout, _handle_database_error)
    app.register_error_handler(HTTPException, _handle_http_error)
    app.register_error_handler(Exception, _handle_unexpected_error)
    app.before_request(_reset_write_flag)


def _reset_write_flag() -> None:
    g.has_written = False  # until `store.transactions.write_transaction` commits in this request


def _handle_broadcast_error(problem: BroadcastError) -> Response:
    if isinstance(problem, TemporarilyUnavailable) and g.get("has_written"):
        problem = CommitOutcomeUnknown()
    if isinstance(problem, CommitOutcomeUnknown):
        _log.warning("request.unsure", method=request.method, path=request.path)
    if isinstance(problem, NotSignedIn) and not wants_json() and not is_stream_request():
        return _require_login(problem)
    if isinstance(problem, ConfirmationRequired):
        return _request_confirmation(problem)
    fields = problem.fields if isinstance(problem, Invalid) else None
    return make_error_response(
        problem.status, problem.title, str(problem), fields=fields, retry_after=problem.retry_after_seconds
    )


def _request_confirmation(problem: ConfirmationRequired) -> Response:
    """For a program, what to send as `confirm`; for a browser, the form again with the fields to fill in."""
    if wants_json():
        required = {"people": problem.recipient_count, "password": problem.requirement.needs_password}
        return make_error_response(
            problem.status, problem.title, str(problem), fields={"confirm": str(problem)}, confirm=required
        )
    is_first = not any(request.form.get(name) for name in ("understood", "typedCount", "password"))
    html = render_template(
        "console/broadcasts/confirm.html",
        form_token=True,
        action=request.full_path.rstrip("?"),
        back=request.path.rpartition("/")[0],  # the page of the broadcast or dead letter that had the form
        fields=[(name, value) for name, value in request.form.items(multi=True) if name not in _UNREPEATED_FIELDS],
        confirmation=problem.requirement,
        n=problem.recipient_count,
        urgent=problem.requirement.needs_password,
        errors={} if is_first else problem.fields,
    )
    return current_app.make_response((html, problem.status))


def _require_login(problem: NotSignedIn) -> Response:
    """The sign-in page. For a fragment the page's script decides: the page may contain unsaved text."""
    if request.headers.get("HX-Request"):
        return Response(str(problem), status=401, mimetype="text/plain")
    if saved_form := resumable_forms.capture_from_signed_out():
        return SIGN_IN_PAGE.current(saved_form)
    return redirect_to("auth.login", next=_get_return_path())


def _handle_database_error(problem: DBAPIError | PoolTimeout) -> Response:
    if isinstance(problem, IntegrityError):  # a row appeared or vanished since it was looked up
        _log.warning("request.crossed", method=request.method, path=request.path, problem=type(problem.orig).__name__)
        return _handle_broadcast_error(
            Conflict("Someone else made a change at the same time. Nothing was saved. Please try again.")
        )
    if is_unavailable(problem):
        return _handle_broadcast_error(TemporarilyUnavailable())
    return _handle_unexpected_error(problem)


def _handle_http_error(problem: HTTPException) -> Response:
    if isinstance(problem, SecurityError):  # no URL can be built for an untrusted host, so no page either
        return Response("This server does not serve this host.\n", status=400, mimetype="text/plain")
    detail = _DETAILS_BY_STATUS.get(problem.code, problem.description or "")
    if isinstance(problem, TooManyFields | TooManyParameters):
        detail = problem.description
    elif problem.code == 413:
        detail = f"This is larger than the limit of {request.max_content_length // 1024:,} KiB."
    if problem.code is None or problem.code < 400:
        return problem.get_response()
    response = make_error_response(problem.code, problem.name, detail)
    if problem.code == 405:
        response.headers["Allow"] = ", ".join(getattr(problem, "valid_methods", None) or [])
    return response


def _handle_unexpected_error(problem: Exception) -> Response:
    _log.exception("request.failed", method=request.method, path=request.path)
    return make_error_response(500, "Something went wrong", "The error has been logged. Please try again.")


def make_error_response(
    status: int,
    title: str,
    detail: str,
    *,
    fields: dict[str, str] | None = None,
    retry_after: int | None = None,
    **extension_members: Any,
) -> Response:
    """An error in the format that the client understands; `extension_members` are problem+json members."""
    if is_stream_request() and status not in (401, 403):
        return make_stream_refusal("BUSY")
    if is_stream_request() and status == 401 and not wants_json():
        return make_stream_refusal("SIGNED_OUT")
    if wants_json():
        body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        response = jsonify(body | ({"fields": fields} if fields else {}) | extension_members)
        response.mimetype = "application/problem+json"
    else:
        values = {"status": status, "title": title, "detail": detail, "retry_after": retry_after}
        body = render_template("core/error.html", **values, kept=_capture_refused_form(status))
        response = current_app.make_response(body)
    response.status_code = status
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


def _capture_refused_form(status: int) -> resumable_forms.SavedForm | None:
    """The refused form, if the same user may succeed with it later."""
    may_retry = status in _TRANSIENT_STATUSES or (status == 403 and not g.get("csrf_valid"))
    return resumable_forms.capture_from_current_user() if may_retry else None


def make_stream_refusal(event_name: str) -> Response:
    """A stream with one block, which then ends."""
    return Response(sse.encode_refusal(event_name), mimetype="text/event-stream", headers={"Cache-Control": "no-store"})


def is_stream_request() -> bool:
    return request.endpoint in ("stream.inbox_stream", "stream.connect")


def wants_json() -> bool:
    """Whether the client is a program or a page's script."""
    return request.path.startswith("/api/") or request.accept_mimetypes.best == "application/json"


def _get_return_path() -> str | None:
    return request.full_path.rstrip("?") if request.method == "GET" else None


SIGN_IN_PAGE = AppPart[Callable[[resumable_forms.SavedForm], Response]]("sign_in_page")
