"""The application factory: `create_app` is the only place that wires the packages together."""

from collections.abc import Callable
from pathlib import Path

import structlog
from flask import Flask

from broadcast.bus.protocol import BUS, Bus, LocalBus
from broadcast.bus.redis import RedisBus
from broadcast.bus.redis_client import REDIS, CircuitBreaker
from broadcast.channels.registry import CHANNELS, build_channels
from broadcast.channels.webhooks import WEBHOOKS, WebhookSender
from broadcast.cli import commands
from broadcast.config import log_config
from broadcast.config.settings import SETTINGS, Settings
from broadcast.ingest import rules_file
from broadcast.ingest.kafka.bridge import KafkaBridge
from broadcast.ingest.rules import RULES
from broadcast.observability import metrics, tracing  # noqa: F401 - metrics register themselves with the process
from broadcast.store import engine, models  # noqa: F401 - models register their tables
from broadcast.store.database import db, migrate
from broadcast.store.fast.card_cache import CARD_CACHE, CardCache
from broadcast.store.fast.count_cache import COUNT_CACHE, CountCache
from broadcast.store.fast.credential_cache import CREDENTIAL_CACHE, CredentialCache
from broadcast.store.fast.last_used_buffer import LAST_USED_BUFFER, LastUsedBuffer
from broadcast.store.leader_lock import create_leader_lock
from broadcast.store.live_broadcasts import LIVE_BROADCASTS, LiveBroadcasts
from broadcast.streams import sse
from broadcast.streams.hub import HUB, Hub, StreamLimits
from broadcast.streams.presence import PRESENCE, Presence, RedisPresence
from broadcast.streams.receipt_buffer import RECEIPT_BUFFER, ReceiptBuffer
from broadcast.web import console, ops
from broadcast.web.api import broadcasts as api_broadcasts
from broadcast.web.api import dead_letters as api_dead_letters
from broadcast.web.api import events as api_events
from broadcast.web.api import inbox as api_inbox
from broadcast.web.api import openapi
from broadcast.web.api import webhooks as api_webhooks
from broadcast.web.auth import account, email_links, login, push, setup
from broadcast.web.auth.oidc import OIDC_PROVIDER, OidcProvider
from broadcast.web.console import analytics, audit
from broadcast.web.console.users import invitations, roles, tokens
from broadcast.web.console.users import users as users_pages
from broadcast.web.core import (
    bounded_request,
    error_handlers,
    identity,
    limits,
    lookup,
    rendering,
    request_id,
    resumable_forms,
    security_headers,
    static_files,
    stream_admission,
)
from broadcast.web.embed import pages as embed_pages
from broadcast.web.inbox import actions as inbox_actions
from broadcast.web.inbox import pages as inbox_pages
from broadcast.web.inbox import preferences
from broadcast.web.streams import views as stream_views
from broadcast.web.streams.direct import DirectStreams
from broadcast.worker.runtime import RUNTIME, Runtime

_log = structlog.get_logger(__name__)
_PROJECT_ROOT = Path(__file__).resolve().parent.parent
_PAGES = (
    login,
    setup,
    account,
    email_links,
    push,
    inbox_pages,
    inbox_actions,
    preferences,
    stream_views,
    console,
    users_pages,
    invitations,
    roles,
    tokens,
    audit,
    analytics,
)
_BLUEPRINTS = (
    *_PAGES,
    api_broadcasts,
    api_inbox,
    api_events,
    api_dead_letters,
    api_webhooks,
    embed_pages,
    openapi,
    ops,
)


class _Application(Flask):
    """Flask without per-request work that is never needed here and that thousands of reconnects would pay for."""

    request_class = bounded_request.BoundedRequest

    def ensure_sync(self, func: Callable) -> Callable:
        return func  # Flask checks a dozen functions per request for being coroutines


def create_app(settings: Settings | None = None) -> Flask:
    """Build the application from `settings`, by default from the environment. Raises SettingsError. Starts nothing."""
    settings = settings or Settings.load()
    app = _Application("broadcast", root_path=str(_PROJECT_ROOT))
    app.secret_key = settings.read_secret_key()
    SETTINGS.attach(app, settings)
    COUNT_CACHE.attach(app, CountCache())
    CARD_CACHE.attach(app, CardCache())
    LIVE_BROADCASTS.attach(app, LiveBroadcasts())
    OIDC_PROVIDER.attach(app, OidcProvider(app, settings) if settings.oidc_issuer else None)
    log_config.configure(settings.log_format, settings.log_level)
    for sentence in settings.misspelling_warnings:
        _log.warning("settings.misspelt", problem=sentence)
    CHANNELS.attach(app, build_channels(app, settings))
    WEBHOOKS.attach(app, WebhookSender(app))
    _add_database(app, settings)
    _add_streams(app, settings)
    _add_ingest(app, settings)
    request_id.init_app(app, settings)  # first, so that every log line of a request carries its id
    traces = tracing.init_app(app, settings)  # second: needs the id
    if traces:
        RUNTIME.of(app).tailer.on_event_logged = traces.record_delivery
    security_headers.init_app(app, settings)
    bounded_request.init_app(app)  # before anything reads a field
    rendering.init_app(app, settings)
    static_files.init_app(app)
    error_handlers.init_app(app)
    lookup.init_app(app)
    stream_admission.init_app(app, settings)  # before the first database query
    embed_pages.init_app(app)  # before authentication: a preflight carries no token
    identity.init_app(app, settings)  # before the limits, which count per user
    limits.init_app(app, settings)
    identity.init_refusals(app)  # after the limits, which count refused requests too
    login.init_app(app)
    resumable_forms.init_app(app)
    for module in _BLUEPRINTS:
        app.register_blueprint(module.blueprint)
    if traces is None:  # spans are made in Flask
        RUNTIME.of(app).direct_streams = DirectStreams(app)
    app.cli.commands.update(commands.COMMANDS.commands)
    return app


def _add_database(app: Flask, settings: Settings) -> None:
    if settings.database_uri.startswith("sqlite"):
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    app.config["SQLALCHEMY_DATABASE_URI"] = settings.database_uri
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine.build_engine_options(settings)
    db.init_app(app)
    migrate.init_app(app, directory=str(_PROJECT_ROOT / "migrations"))
    with app.app_context():
        engine.prepare_engine(db.engine, lock_timeout_seconds=settings.database_lock_timeout_seconds)


def _add_streams(app: Flask, settings: Settings) -> None:
    receipt_buffer = ReceiptBuffer()
    stream_limits = StreamLimits(
        streams=settings.streams_per_worker,
        per_user=settings.streams_per_user,
        per_address=settings.streams_per_address,
        backlog_bytes=settings.stream_backlog_bytes,
        heartbeat_seconds=settings.heartbeat_seconds,
        max_age_seconds=settings.stream_max_age_seconds,
        replay_events=settings.replay_events,
    )
    encoders = {"json": sse.encode_event_json, "html": rendering.make_html_encoder(app)}
    hub = Hub(encoders, stream_limits, on_delivered=lambda event, ids: receipt_buffer.add(event.broadcast_id, ids))
    redis = REDIS.attach(app, CircuitBreaker(settings.redis_url) if settings.redis_url else None)
    keys = [app.secret_key, *settings.secret_key_fallbacks]
    bus: Bus = RedisBus(settings.redis_url, redis, keys=keys) if redis else LocalBus()
    presence = _create_presence(hub, settings, redis)
    credential_cache = CREDENTIAL_CACHE.attach(app, CredentialCache())
    hub.on_control_event = credential_cache.apply
    HUB.attach(app, hub)
    BUS.attach(app, bus)
    RECEIPT_BUFFER.attach(app, receipt_buffer)
    LAST_USED_BUFFER.attach(app, LastUsedBuffer())
    PRESENCE.attach(app, presence)
    RUNTIME.attach(app, Runtime(app, hub, bus, receipt_buffer, presence, poll_seconds=settings.tail_poll_seconds))


def _add_ingest(app: Flask, settings: Settings) -> None:
    is_unmatched_allowed = settings.event_rules_default == "allow"
    RULES.attach(app, rules_file.load_rules(settings.event_rules, should_allow_others=is_unmatched_allowed))
    for sentence in settings.list_event_rule_warnings():
        structlog.get_logger(__name__).warning("events.rules", doubt=sentence)
    if not settings.kafka_bootstrap_servers:
        return
    with app.app_context():
        is_elected = settings.kafka_bridge == "elected"
        bridge_lock = create_leader_lock(db.engine, "kafka-bridge", folder=settings.data_dir) if is_elected else None
    RUNTIME.of(app).bridge = KafkaBridge(app, settings, bridge_lock)


def _create_presence(hub: Hub, settings: Settings, redis: CircuitBreaker | None) -> Presence:
    if redis is None:
        return Presence(hub)
    # three heartbeats: a busy worker may miss one, and a dead one is forgotten within the third
    return RedisPresence(hub, settings.redis_url, redis, lease_seconds=3 * settings.heartbeat_seconds)
