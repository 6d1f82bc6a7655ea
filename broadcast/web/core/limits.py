"""Who may ask how often: in Redis over all workers, in the worker's own memory while Redis is away, never not at all.

One table says what a request counts as. What is not in it counts with everything else that its person does, or that its client
does while nobody is signed in, whatever the endpoint.
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
from broadcast.domain import usernames
from broadcast.domain.client_address import client_of
from broadcast.web.core.error_handlers import is_stream, stream_refusal
from broadcast.web.core.redis_limit_storage import Counters
from broadcast.web.core.request_parsing import json_object

limiter = Limiter(key_func=lambda: person_or_client(), headers_enabled=False, key_prefix="broadcast")


def address() -> str:
    """Where the request comes from, to be shown."""
    return request.remote_addr or "unknown"


def client() -> str:
    """The same, to be counted: all addresses that one client may use are one."""
    return client_of(address())


def person_or_client() -> str:
    return f"user:{g.identity.id}" if getattr(g, "identity", None) else f"address:{client()}"


def _account() -> str:
    # with the client, so that a stranger elsewhere cannot lock the owner out
    return f"login:{usernames.normalize(request.form.get('username', ''))}:{client()}"


class Bucket(NamedTuple):
    """What is counted together: under `name`, up to the limit of that setting, for each key by itself."""

    name: str
    setting: str
    key: Callable[[], str] = person_or_client


Buckets = tuple[Bucket, ...]

_EVERYTHING_ELSE: Buckets = (Bucket("default", "limit_default"),)
_NOTHING: Buckets = ()
_SENDING: Buckets = (Bucket("publish", "limit_publish_per_user"),)
_SIGNING_IN: Buckets = (
    Bucket("login-address", "limit_login_per_address", client),
    Bucket("login", "limit_login_per_account", _account),
)
_COMING_BACK: Buckets = (
    Bucket("sign-in", "limit_login_per_address", client),
)  # from the provider, or by an invitation
_SETTING_UP: Buckets = (Bucket("setup", "limit_login_per_account", client),)
_GUESSING: Buckets = (Bucket("password", "limit_login_per_account"),)
_STREAMING: Buckets = (
    Bucket("stream-address", "limit_stream_per_address", client),
    Bucket("stream", "limit_stream_per_user"),
)


def _composing() -> Buckets:
    """A form that is only saved, checked or looked at is no sending; whatever else its button may say is."""
    return _EVERYTHING_ELSE if request.form.get("do", "send") in ("save", "review", "keep") else _SENDING


def _editing() -> Buckets:
    """A change by a program that may alarm people again, or that tries a password, is a sending."""
    try:
        body = json_object()
    except Invalid:
        return _EVERYTHING_ELSE
    is_loud = any(
        body.get(name) not in (None, False) for name in ("notifyAgain", "acknowledgeAgain", "priority", "confirm")
    )
    return _SENDING if is_loud else _EVERYTHING_ELSE


def _redriving() -> Buckets:
    return _EVERYTHING_ELSE if "check" in request.form else _SENDING


_COUNTS_AS: dict[str, Buckets | Callable[[], Buckets]] = {
    "ops.alive": _NOTHING,
    "ops.ready": _NOTHING,
    "ops.prometheus": _NOTHING,
    "stream.inbox_stream": _STREAMING,
    "stream.connect": _STREAMING,
    "auth.sign_in": _SIGNING_IN,
    "auth.ask_organisation": _COMING_BACK,
    "auth.organisation_answered": _COMING_BACK,
    "auth.organisation_ended": _COMING_BACK,
    "invitations.show": _COMING_BACK,
    "invitations.accept": _SETTING_UP,
    "first_run.make": _SETTING_UP,
    "account.change_password": _GUESSING,
    "api.create": _SENDING,
    "api.edit": _editing,
    "figures.remind": _SENDING,
    "figures.remind_by_program": _SENDING,
    "console.compose.create": _composing,
    "console.compose.save": _composing,
    "console.one.send": _SENDING,
    "console.one.duplicate": _SENDING,
    "console.listing.several": _SENDING,
    "console.dead_letters.again": _redriving,
    "console.dead_letters.redrive_all": _SENDING,
    "dlt.again": _SENDING,
    "dlt.redrive_all": _SENDING,
}


def _buckets() -> Buckets:
    """What this request counts as. What is refused anyway is nothing special, and its body is not read."""
    if g.refusal is not None:
        return _EVERYTHING_ELSE
    counts_as = _COUNTS_AS.get(request.endpoint, _EVERYTHING_ELSE)
    return counts_as() if callable(counts_as) else counts_as


def _count() -> Response | None:
    """Count the request, and refuse it when it is one too many. Raises TooManyRequests."""
    settings = SETTINGS.current
    if not settings.ratelimit_enabled or request.endpoint is None or request.endpoint == "static":
        return None
    for bucket in _buckets():
        limit, key = getattr(settings, bucket.setting), bucket.key()
        for item in _items(limit):
            if limiter.limiter.hit(item, bucket.name, key):
                continue
            if is_stream():
                return stream_refusal("BUSY")
            raise TooManyRequests(str(item), min(60, item.get_expiry()))
    return None


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
        app.config["RATELIMIT_STORAGE_OPTIONS"] = {"redis": REDIS.of(app)}
    limiter.init_app(app)
    app.before_request(_count)
