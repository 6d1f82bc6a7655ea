"""Sets the request id: X-Request-ID from a trusted proxy, or a new one. The response and the log carry it."""

import secrets
import time

import structlog
from flask import Flask, Response, g, request

from broadcast.base import correlation
from broadcast.config.settings import Settings
from broadcast.observability import metrics

_log = structlog.get_logger(__name__)


def init_app(app: Flask, settings: Settings) -> None:
    app.before_request(lambda: _begin_request(settings))
    app.after_request(_finish_request)


def choose_id(received_id: str, settings: Settings) -> str:
    """The request's id; `received_id` is the header X-Request-ID, which counts behind a trusted proxy."""
    if settings.trusted_proxy_hops and correlation.is_safe_id(received_id):
        return received_id
    return secrets.token_hex(8)


def log_request(method: str, path: str, status: int, seconds: float, user_id: int | None) -> None:
    log = _log.debug if method in ("GET", "HEAD", "OPTIONS") else _log.info
    log("request.done", method=method, path=path, status=status, ms=round(1000 * seconds, 1), user=user_id)


def _begin_request(settings: Settings) -> None:
    g.began = time.monotonic()
    correlation.set_current_id(choose_id(request.headers.get("X-Request-ID", ""), settings))


def _finish_request(response: Response) -> Response:
    response.headers["X-Request-ID"] = correlation.current_id() or ""
    seconds = time.monotonic() - g.get("began", time.monotonic())
    if response.mimetype != "text/event-stream":
        metrics.request_seconds.labels(f"{response.status_code // 100}xx").observe(seconds)
    identity = g.get("identity")
    log_request(request.method, request.path, response.status_code, seconds, identity.id if identity else None)
    return response
