"""Who may ask how often: in Redis over all workers, in the worker's own memory while Redis is away, never not at all."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from flask import Flask, current_app, g, request
from flask_limiter import Limiter
from limits import RateLimitItem, parse_many

from broadcast.settings import Settings
from broadcast.web.counters import Counters
from broadcast.web.errors import stream_refusal


def address() -> str:
    return request.remote_addr or "unknown"


def person_or_address() -> str:
    return f"user:{g.identity.id}" if getattr(g, "identity", None) else f"address:{address()}"


def is_sending() -> bool:
    """Whether the compose form was posted to send it, and not to save, check or review it."""
    return request.form.get("do", "send") in ("send", "test")


def _account() -> str:
    # with the address, so that a stranger elsewhere cannot lock the owner out
    return f"login:{request.form.get('username', '')[:64].strip().lower()}:{address()}"


def _setting(name: str):
    return lambda: getattr(current_app.extensions["settings"], name)


# the default as a function too: given by configuration, it would stay that of the first application of the process
limiter = Limiter(
    key_func=person_or_address,
    default_limits=[_setting("limit_default")],
    headers_enabled=False,
    key_prefix="broadcast",
)
publish_per_user = limiter.shared_limit(_setting("limit_publish_per_user"), "publish", methods=["POST"])
# the same count, for a form that is also only saved or looked at
send_per_user = limiter.shared_limit(
    _setting("limit_publish_per_user"), "publish", methods=["POST"], exempt_when=lambda: not is_sending()
)
login_per_account = limiter.limit(_setting("limit_login_per_account"), key_func=_account, methods=["POST"])
login_per_address = limiter.limit(_setting("limit_login_per_address"), key_func=address, methods=["POST"])
setup_per_address = limiter.limit(
    _setting("limit_login_per_account"), key_func=lambda: f"setup:{address()}", methods=["POST"]
)
# for the organisation's, which come as addresses
sign_in_per_address = limiter.shared_limit(_setting("limit_login_per_address"), "sign-in", key_func=address)

password_per_person = limiter.limit(_setting("limit_login_per_account"), key_func=person_or_address, methods=["POST"])


def streams(view: Callable) -> Callable:
    """Count a stream for its address and its person, and refuse it over either limit.

    Not by flask-limiter's decorators, which cost more than looking up who asks: thousands may return at once.
    """

    @limiter.exempt
    @wraps(view)
    def counted(**values: Any) -> Any:
        settings: Settings = current_app.extensions["settings"]
        if settings.ratelimit_enabled and not (
            _is_within(settings.limit_stream_per_address, "stream-address", address())
            and _is_within(settings.limit_stream_per_user, "stream", person_or_address())
        ):
            return stream_refusal("BUSY")
        return view(**values)

    return counted


def _is_within(limit: str, name: str, key: str) -> bool:
    return all(limiter.limiter.hit(item, name, key) for item in _items(limit))


@cache
def _items(limit: str) -> list[RateLimitItem]:
    return parse_many(limit)


def init_app(app: Flask, settings: Settings) -> None:
    app.config.update(
        RATELIMIT_ENABLED=settings.ratelimit_enabled,
        RATELIMIT_STRATEGY="fixed-window",
        RATELIMIT_STORAGE_URI=f"{Counters.STORAGE_SCHEME[0]}://" if settings.redis_url else "memory://",
    )
    if settings.redis_url:
        app.config["RATELIMIT_STORAGE_OPTIONS"] = {"redis": app.extensions["redis"]}
    limiter.init_app(app)
