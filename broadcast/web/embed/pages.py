"""The inbox embedded in another site's pages: its script, tokens for the site's server, and CORS.

CORS headers need an allowed origin, a view with `may_be_embedded`, and a token of that origin, or a preflight, which
carries no token. Cookies are never sent, and nothing may be framed.
"""

import json
from datetime import datetime
from functools import cache
from pathlib import Path

from flask import Blueprint, Flask, Response, current_app, g, jsonify, request
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException

from broadcast.actions import sessions
from broadcast.base.errors import Forbidden, Invalid, NotFound
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.web.core.identity import allow, current_identity, is_embeddable
from broadcast.web.core.request_parsing import read_json_object, reject_unknown_fields
from broadcast.web.embed import tokens as embed_tokens

blueprint = Blueprint("embedding", __name__)

_SCRIPT_PARTS = (
    "shared/leadership",
    "shared/stream_events",
    "shared/stream_health",
    "embed/dom",
    "embed/event_stream",
    "embed/status_line",
    "embed/api_client",
    "embed/cards",
    "embed/stream",
    "embed/inbox",
)
_PREFLIGHT_SECONDS = 600
_SCRIPT_SECONDS = 300  # the script's URL never changes, so pages use a new version after this time at the latest


def init_app(app: Flask) -> None:
    app.before_request(_answer_preflight)
    app.after_request(_add_cors_headers)


@blueprint.get("/embed.js")
@allow("anyone")
def script() -> Response:
    if not SETTINGS.current.embed_origins:
        raise NotFound("There is nothing at this address.")
    response = Response(_build_script(Path(current_app.static_folder)), mimetype="text/javascript")
    response.headers["Cache-Control"] = f"public, max-age={_SCRIPT_SECONDS}"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    response.add_etag()
    return response.make_conditional(request)


@cache
def _build_script(folder: Path) -> str:
    """Bundle several files into one: a page that loads modules of another site would need CORS for them."""
    stylesheet = json.dumps((folder / "embed/inbox.css").read_text())
    scripts = [(folder / f"{name}.js").read_text() for name in _SCRIPT_PARTS]
    return "\n".join(['"use strict";', "(() => {", f"const SHEET = {stylesheet};", *scripts, "})();", ""])


@blueprint.post("/api/embed/tokens")
@allow("embed")
def create_token():
    """`{username, origin}` from a site's server: a token for that user on that site; a sole origin may be left out."""
    if request.headers.get("Origin") or request.headers.get("Sec-Fetch-Site"):
        raise Forbidden("Request this from your server. Never put the key that you used into a web page.")
    body, origins = read_json_object(), SETTINGS.current.embed_origins
    if not origins:
        raise NotFound("Embedding is off: EMBED_ORIGINS is empty.")
    username, origin = body.pop("username", None), body.pop("origin", origins[0] if len(origins) == 1 else None)
    reject_unknown_fields(body)
    if not isinstance(username, str) or not 0 < len(username) <= 64:
        raise Invalid({"username": "Send the username of the user."})
    if origin not in origins:
        raise Invalid({"origin": "origin must be one of the origins in EMBED_ORIGINS."})
    return _issue_token(username, origin, clock.now()), 201


def _issue_token(username: str, origin: str, now: datetime) -> Response:
    caller = current_identity()
    session_id, ends_at = sessions.begin_embedded_session(username, origin=origin, token_id=caller.token_id, now=now)
    expires_at = min(now + embed_tokens.LIFETIME, ends_at, caller.expires_at or ends_at)
    token = embed_tokens.sign(session_id, expires_at=expires_at)
    return jsonify(
        token=token, expiresAt=clock.to_rfc3339(expires_at), expiresIn=int((expires_at - now).total_seconds())
    )


def _answer_preflight() -> Response | None:
    """Answer a preflight request (Fetch standard, 3.2.2)."""
    method = request.headers.get("Access-Control-Request-Method")
    if request.method != "OPTIONS" or not method or request.headers.get("Origin") not in SETTINGS.current.embed_origins:
        return None
    try:
        endpoint, _ = request_ctx.url_adapter.match(method=method)
    except HTTPException:
        return None
    if not is_embeddable(endpoint):
        return None
    response = Response(status=204)
    response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
    response.headers["Access-Control-Allow-Methods"] = method
    response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
    response.headers["Access-Control-Max-Age"] = str(_PREFLIGHT_SECONDS)
    response.vary.add("Origin")
    return response


def _add_cors_headers(response: Response) -> Response:
    if SETTINGS.current.embed_origins and is_embeddable(request.endpoint):
        response.vary.add("Origin")
        if g.get("embedded_in") and g.embedded_in == request.headers.get("Origin"):
            response.headers["Access-Control-Allow-Origin"] = g.embedded_in
    return response
