"""Response headers, cookies, and trusted hosts."""

import os

from flask import Flask, Request, Response, current_app, g, request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from itsdangerous import URLSafeTimedSerializer
from werkzeug.middleware.proxy_fix import ProxyFix

from broadcast.config.settings import Settings

_CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
_LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")  # for the launcher and health checks on this machine
_ONE_YEAR_SECONDS = 31_536_000
MAX_LARGE_BODY_BYTES = 8 * 1024 * 1024  # 50,000 rows of a table


class _LazySessionInterface(SecureCookieSessionInterface):
    """Flask's session interface, which uses the signature serializer only for requests with a cookie, and makes it once:
    making it takes longer than checking a cookie.
    """

    _serializer: URLSafeTimedSerializer | None = None

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:
        self._serializer = self._serializer or super().get_signing_serializer(app)
        return self._serializer

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        return super().open_session(app, request) if "HTTP_COOKIE" in request.environ else self.session_class()


def init_app(app: Flask, settings: Settings) -> None:
    app.config.update(
        MAX_CONTENT_LENGTH=256 * 1024,
        MAX_FORM_MEMORY_SIZE=256 * 1024,
        SESSION_COOKIE_NAME="__Host-broadcast" if settings.is_production else "broadcast",
        SESSION_COOKIE_SECURE=settings.is_production,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_PATH="/",
        TRUSTED_HOSTS=[*settings.trusted_hosts, *_LOOPBACK_HOSTS] if settings.trusted_hosts else None,
        SECRET_KEY_FALLBACKS=settings.secret_key_fallbacks or None,
        WTF_CSRF_TIME_LIMIT=None,  # valid as long as the session
        WTF_CSRF_CHECK_DEFAULT=False,  # `identity` checks it, once the user is known
        WTF_CSRF_SSL_STRICT=False,  # `identity` checks Origin and Sec-Fetch-Site, which say more than Referer
    )
    if settings.trusted_proxy_hops:
        # each proxy appends an address, but the scheme is one value that the nearest proxy sets
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=settings.trusted_proxy_hops, x_proto=1, x_host=0)
    app.session_interface = _LazySessionInterface()
    app.before_request(_raise_body_limit)
    constant_headers = _build_constant_headers(settings)
    app.after_request(lambda response: _add_headers(response, settings, constant_headers))


def _raise_body_limit() -> None:
    if request.endpoint and getattr(current_app.view_functions[request.endpoint], "is_large", False):
        request.max_content_length = request.max_form_memory_size = MAX_LARGE_BODY_BYTES


def _build_constant_headers(settings: Settings) -> list[tuple[str, str]]:
    """What every response gets and no view sets."""
    headers = {
        "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }
    if settings.is_production:
        headers["Strict-Transport-Security"] = f"max-age={_ONE_YEAR_SECONDS}; includeSubDomains"
    return list(headers.items())


def _add_headers(response: Response, settings: Settings, constant_headers: list[tuple[str, str]]) -> Response:
    headers = response.headers
    # setting them one by one, each of which is searched for, takes three times as long
    headers.extend(constant_headers)
    headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    if not settings.is_production:
        headers["X-Worker"] = str(os.getpid())  # the worker that answered, for tests and debugging
    if request.endpoint != "static" and (getattr(g, "identity", None) is not None or response.mimetype == "text/html"):
        headers.setdefault("Cache-Control", "no-store")
    return response
