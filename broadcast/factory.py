"""`create_app` wires the rooms together; nothing else does."""

import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from flask import Flask

from broadcast import cli, metrics, tracing  # noqa: F401 - metrics register themselves with the process
from broadcast.bus.local import LocalBus
from broadcast.bus.protocol import Bus
from broadcast.bus.redis import RedisBus
from broadcast.counted import Counted
from broadcast.deliveries import Deliveries
from broadcast.domain.correlation import current as current_correlation
from broadcast.hub import sse
from broadcast.hub.hub import Hub, Limits
from broadcast.ingest import rules_file
from broadcast.ingest.bridge import Bridge
from broadcast.last_use import LastUse
from broadcast.presence import LocalPresence, Presence, RedisPresence
from broadcast.redis_url import Quick
from broadcast.runtime import Runtime
from broadcast.settings import Settings
from broadcast.store import database, models  # noqa: F401 - models register their tables
from broadcast.store.cards import Cards
from broadcast.store.database import db, migrate
from broadcast.store.lease import lease
from broadcast.upkeep import commands
from broadcast.web import (
    account,
    api,
    api_inbox,
    assets,
    audit,
    auth,
    bounded_request,
    console,
    correlation,
    dead_letters_api,
    embedding,
    errors,
    events,
    figures,
    first_run,
    identity,
    ids,
    inbox,
    invitations,
    kept_forms,
    limits,
    marks,
    openapi,
    ops,
    people,
    preferences,
    render,
    roles,
    security,
    stream,
    tokens,
    turnstile,
)
from broadcast.web.oidc import Provider

_log = structlog.get_logger(__name__)
_TOP = Path(__file__).resolve().parent.parent
_STATIC = str(_TOP / "static")
_PEOPLE = (people, invitations, roles, tokens)
_PAGES = (auth, first_run, account, inbox, marks, preferences, stream, console, *_PEOPLE, audit, figures)
_BLUEPRINTS = (*_PAGES, api, api_inbox, events, dead_letters_api, embedding, openapi, ops)


class _Application(Flask):
    """Flask without what no request here needs, and every one of thousands of returning streams would pay for."""

    request_class = bounded_request.BoundedRequest

    def ensure_sync(self, func: Callable) -> Callable:
        return func  # Flask looks at each of a dozen functions, for every request, whether it is a coroutine


def create_app(settings: Settings | None = None) -> Flask:
    """Build the application; without `settings`, from the environment. Raises SettingsError. Starts nothing."""
    settings = settings or Settings.load()
    app = _Application("broadcast", root_path=str(_TOP), template_folder="templates", static_folder=_STATIC)
    app.secret_key = settings.read_secret_key()
    app.extensions["settings"] = settings
    app.extensions["counted"] = Counted()
    app.extensions["cards"] = Cards()
    app.extensions["oidc"] = Provider(app, settings) if settings.oidc_issuer else None
    _configure_log(settings)
    for sentence in settings.misspelt:
        _log.warning("settings.misspelt", problem=sentence)
    _add_database(app, settings)
    _add_streams(app, settings)
    _add_events(app, settings)
    correlation.init_app(app, settings)  # first: whatever is said about a request carries its id
    tracing.init_app(app, settings)  # second, as it needs the id
    security.init_app(app, settings)
    bounded_request.init_app(app)  # before anybody reads a field
    render.init_app(app, settings)
    assets.init_app(app)
    errors.init_app(app)
    ids.init_app(app)
    turnstile.init_app(app, settings)  # before the first question to the database
    embedding.init_app(app)  # a preflight carries no token, so it is answered before anybody is asked for one
    identity.init_app(app, settings)  # before the limits, which count per person
    limits.init_app(app, settings)
    identity.init_refusals(app)  # after the limits, which count what is refused too
    auth.init_app(app)
    kept_forms.init_app(app)
    for module in _BLUEPRINTS:
        app.register_blueprint(module.blueprint)
    cli.init_app(app)
    commands.init_app(app)
    return app


def _add_database(app: Flask, settings: Settings) -> None:
    if settings.database_uri.startswith("sqlite"):
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    app.config["SQLALCHEMY_DATABASE_URI"] = settings.database_uri
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = database.engine_options(settings)
    db.init_app(app)
    migrate.init_app(app, directory=str(_TOP / "migrations"))
    with app.app_context():
        database.prepare_engine(db.engine, busy_seconds=settings.database_busy_seconds)


def _add_streams(app: Flask, settings: Settings) -> None:
    deliveries = Deliveries()
    stream_limits = Limits(
        streams=settings.streams_per_worker,
        per_user=settings.streams_per_user,
        per_address=settings.streams_per_address,
        backlog_bytes=settings.stream_backlog_bytes,
        heartbeat_seconds=settings.heartbeat_seconds,
        max_age_seconds=settings.stream_max_age_seconds,
        replay_events=settings.replay_events,
    )
    encoders = {"json": sse.encode_json, "html": render.html_encoder(app)}
    hub = Hub(encoders, stream_limits, on_delivered=deliveries.add_event)
    app.extensions["redis"] = redis = Quick(settings.redis_url) if settings.redis_url else None
    keys = [app.secret_key, *settings.secret_key_fallbacks]
    bus: Bus = RedisBus(settings.redis_url, redis, keys=keys) if redis else LocalBus()
    presence = _presence(hub, settings, redis)
    app.extensions.update(hub=hub, bus=bus, deliveries=deliveries, last_use=LastUse(), presence=presence)
    app.extensions["runtime"] = Runtime(app, hub, bus, deliveries, presence, poll_seconds=settings.tail_poll_seconds)


def _add_events(app: Flask, settings: Settings) -> None:
    allows_others = settings.event_rules_others == "allow"
    app.extensions["rules"] = rules_file.load(settings.event_rules, lets_others_through=allows_others)
    for sentence in settings.event_doubts():
        structlog.get_logger(__name__).warning("events.rules", doubt=sentence)
    if not settings.kafka_bootstrap_servers:
        return
    with app.app_context():
        is_elected = settings.kafka_bridge == "elected"
        the_one = lease(db.engine, "kafka-bridge", folder=settings.data_dir) if is_elected else None
    app.extensions["runtime"].bridge = Bridge(app, settings, the_one)


def _presence(hub: Hub, settings: Settings, redis: Quick | None) -> Presence:
    if redis is None:
        return LocalPresence(hub)
    # three heartbeats: a busy worker may miss one, a dead one is forgotten within the third
    return RedisPresence(hub, settings.redis_url, redis, lease_seconds=3 * settings.heartbeat_seconds)


_UNFIT = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]")  # ends a line, or steers a terminal


def _escape(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Keep what visitors sent within its line of the log; a traceback keeps its lines."""
    for name, value in event.items():
        if isinstance(value, str):
            value = value if name == "exception" else value.replace("\n", "\\n")
            event[name] = _UNFIT.sub(lambda found: ascii(found[0])[1:-1], value)
    return event


def _configure_log(settings: Settings) -> None:
    renderer = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_correlation,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _escape,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.log_level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _add_correlation(_logger: object, _method: str, line: dict) -> dict:
    if (id := current_correlation()) is not None:
        line.setdefault("correlation", id)
    return line
