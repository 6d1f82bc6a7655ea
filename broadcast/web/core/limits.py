"""Rate limits: counted in Redis over all workers, and in the worker's memory while Redis is away.

One table maps requests to buckets. A request not in it counts with everything else that its user does, or its client
when nobody is signed in, whatever the endpoint.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from flask import Flask, Response, g, request
from flask_limiter import Limiter
from limits import RateLimitItem, parse_many

from broadcast.base.errors import Invalid, TooManyRequests
from broadcast.bus.redis_client import REDIS
from broadcast.config.settings import SETTINGS, Settings
from broadcast.domain import client_address, usernames
from broadcast.web.core.error_handlers import is_stream_request, make_stream_refusal
from broadcast.web.core.redis_limit_storage import Counter, RedisLimitStorage
from broadcast.web.core.request_parsing import read_json_object

UNKNOWN_ADDRESS = "unknown"
limiter = Limiter(key_func=lambda: get_user_or_client_key(), headers_enabled=False, key_prefix="broadcast")


def get_remote_address() -> str:
    """The client's address, for display."""
    return request.remote_addr or UNKNOWN_ADDRESS


def get_client_key() -> str:
    """The client's address, for counting: all addresses that one client may use share a key."""
    return client_address.get_client_key(get_remote_address())


def get_user_or_client_key() -> str:
    return _format_user_key(g.identity.id) if getattr(g, "identity", None) else f"address:{get_client_key()}"


def _format_user_key(user_id: int) -> str:
    return f"user:{user_id}"


def _get_account_key() -> str:
    # with the client, so that a stranger elsewhere cannot lock the owner out
    return f"login:{usernames.normalize_username(request.form.get('username', ''))}:{get_client_key()}"


class Bucket(NamedTuple):
    """What is counted together: `name`, the setting with the limit, and the function that returns the key."""

    name: str
    setting_name: str
    key: Callable[[], str] = get_user_or_client_key


Buckets = tuple[Bucket, ...]

_DEFAULT_BUCKETS: Buckets = (Bucket("default", "limit_default"),)
_NO_BUCKETS: Buckets = ()
_PUBLISH_BUCKETS: Buckets = (Bucket("publish", "limit_publish_per_user"),)
_LOGIN_BUCKETS: Buckets = (
    Bucket("login-address", "limit_login_per_address", get_client_key),
    Bucket("login", "limit_login_per_account", _get_account_key),
)
# sign-in from the provider, or by an invitation
_CALLBACK_BUCKETS: Buckets = (Bucket("sign-in", "limit_login_per_address", get_client_key),)
_SETUP_BUCKETS: Buckets = (Bucket("setup", "limit_login_per_account", get_client_key),)
_PASSWORD_BUCKETS: Buckets = (Bucket("password", "limit_login_per_account"),)
_STREAM_BUCKETS: Buckets = (
    Bucket("stream-address", "limit_stream_per_address", get_client_key),
    Bucket("stream", "limit_stream_per_user"),
)


def _select_compose_buckets() -> Buckets:
    """Only the send button counts as sending. Saving, checking and previewing the form do not."""
    return _DEFAULT_BUCKETS if request.form.get("do", "send") in ("save", "review", "keep") else _PUBLISH_BUCKETS


def _select_edit_buckets() -> Buckets:
    """An edit by a program that may alert users again, or that tries a password, counts as sending."""
    try:
        body = read_json_object()
    except Invalid:
        return _DEFAULT_BUCKETS
    may_alert = any(
        body.get(name) not in (None, False) for name in ("notifyAgain", "acknowledgeAgain", "priority", "confirm")
    )
    return _PUBLISH_BUCKETS if may_alert else _DEFAULT_BUCKETS


def _select_redrive_buckets() -> Buckets:
    return _DEFAULT_BUCKETS if "check" in request.form else _PUBLISH_BUCKETS


_BUCKETS_BY_ENDPOINT: dict[str, Buckets | Callable[[], Buckets]] = {
    "ops.alive": _NO_BUCKETS,
    "ops.ready": _NO_BUCKETS,
    "ops.prometheus": _NO_BUCKETS,
    "stream.inbox_stream": _STREAM_BUCKETS,
    "stream.connect": _STREAM_BUCKETS,
    "auth.sign_in": _LOGIN_BUCKETS,
    "auth.oidc_login": _CALLBACK_BUCKETS,
    "auth.oidc_callback": _CALLBACK_BUCKETS,
    "auth.oidc_backchannel_logout": _CALLBACK_BUCKETS,
    "invitations.show": _CALLBACK_BUCKETS,
    "invitations.accept": _SETUP_BUCKETS,
    "first_run.create_administrator": _SETUP_BUCKETS,
    "account.change_password": _PASSWORD_BUCKETS,
    "api.create": _PUBLISH_BUCKETS,
    "api.edit": _select_edit_buckets,
    "figures.remind": _PUBLISH_BUCKETS,
    "figures.remind_via_api": _PUBLISH_BUCKETS,
    "console.compose.create": _select_compose_buckets,
    "console.compose.save": _select_compose_buckets,
    "console.one.send": _PUBLISH_BUCKETS,
    "console.one.duplicate": _PUBLISH_BUCKETS,
    "console.listing.bulk_action": _PUBLISH_BUCKETS,
    "console.dead_letters.redrive_one": _select_redrive_buckets,
    "console.dead_letters.redrive_all": _PUBLISH_BUCKETS,
    "dlt.redrive_one": _PUBLISH_BUCKETS,
    "dlt.redrive_all": _PUBLISH_BUCKETS,
}


def _select_buckets() -> Buckets:
    """The buckets of this request. A request that is refused anyway uses the default ones, and its body is not read."""
    if g.refusal is not None:
        return _DEFAULT_BUCKETS
    buckets = _BUCKETS_BY_ENDPOINT.get(request.endpoint, _DEFAULT_BUCKETS)
    return buckets() if callable(buckets) else buckets


def _enforce_limits() -> Response | None:
    """Count the request, and refuse it above a limit. Raises TooManyRequests."""
    if request.endpoint is None or request.endpoint == "static":
        return None
    exceeded = _count([(bucket, bucket.key()) for bucket in _select_buckets()])
    if exceeded and is_stream_request():
        return make_stream_refusal("BUSY")
    if exceeded:
        raise TooManyRequests(str(exceeded), min(60, exceeded.get_expiry()))
    return None


def may_open_stream(user_id: int, address: str) -> bool:
    """Count a stream that opens before WSGI; False above a limit."""
    keys = (client_address.get_client_key(address), _format_user_key(user_id))
    return _count(list(zip(_STREAM_BUCKETS, keys, strict=True))) is None


def _count(keys: list[tuple[Bucket, str]]) -> RateLimitItem | None:
    """Count under these keys, in one round trip to Redis; return the first limit that is exceeded."""
    settings = SETTINGS.current
    if not keys or not settings.ratelimit_enabled:
        return None
    items = [
        (item, item.key_for(bucket.name, key))
        for bucket, key in keys
        for item in _parse_limits(getattr(settings, bucket.setting_name))
    ]
    counters = [Counter(counter_key, item.get_expiry()) for item, counter_key in items]
    storage = limiter.storage  # there is none without limits
    if isinstance(storage, RedisLimitStorage):
        counts = storage.incr_all(counters)
    else:
        counts = [storage.incr(*counter) for counter in counters]
    return next((item for (item, _), count in zip(items, counts, strict=True) if count > item.amount), None)


@cache
def _parse_limits(limits_text: str) -> list[RateLimitItem]:
    return parse_many(limits_text)


def init_app(app: Flask, settings: Settings) -> None:
    app.config.update(
        RATELIMIT_ENABLED=settings.ratelimit_enabled,
        RATELIMIT_STRATEGY="fixed-window",
        RATELIMIT_STORAGE_URI=f"{RedisLimitStorage.STORAGE_SCHEME[0]}://" if settings.redis_url else "memory://",
    )
    if settings.redis_url:
        app.config["RATELIMIT_STORAGE_OPTIONS"] = {"redis": REDIS.of(app)}
    # without its hooks, an eighth of a request's cost: no view declares a limit of its own
    app.extensions["limiter"] = {limiter}
    limiter.init_app(app)
    app.before_request(_enforce_limits)
