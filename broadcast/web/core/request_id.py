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
    app.before_request(lambda: _begin_request(is_behind_proxy=settings.trusted_proxy_hops > 0))
    app.after_request(_finish_request)


def _begin_request(*, is_behind_proxy: bool) -> None:
    g.began = time.monotonic()
    received_id = request.headers.get("X-Request-ID", "")
    correlation.set_current_id(
        received_id if is_behind_proxy and correlation.is_safe_id(received_id) else secrets.token_hex(8)
    )


def _finish_request(response: Response) -> Response:
    response.headers["X-Request-ID"] = correlation.current_id() or ""
    seconds = time.monotonic() - g.get("began", time.monotonic())
    if response.mimetype != "text/event-stream":
        metrics.request_seconds.labels(f"{response.status_code // 100}xx").observe(seconds)
    log_request = _log.debug if request.method in ("GET", "HEAD", "OPTIONS") else _log.info
    identity = g.get("identity")
    log_request(
        "request.done",
        method=request.method,
        path=request.path,
        status=response.status_code,
        ms=round(1000 * seconds, 1),
        user=identity.id if identity else None,
    )
    return response
