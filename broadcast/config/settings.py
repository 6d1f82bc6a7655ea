"""Every setting: its name is the environment variable, its description the sentence in `docs/settings.md`.

Read once, at start, by `Settings.load`. Invalid values stop the program with a hint for each, instead of failing later
in a request. Nothing else in the project reads the environment (except `gunicorn.conf.py`, which runs before the
program is loaded).
"""

import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from broadcast.base.app_parts import AppPart
from broadcast.config import database_url
from broadcast.config.auth_settings import SignInSettings
from broadcast.config.email_settings import EmailSettings
from broadcast.config.kafka_settings import KafkaSettings
from broadcast.config.push_settings import PushSettings
from broadcast.config.secret_keys import MIN_KEY_CHARACTERS, find_weakness
from broadcast.config.validation import MISSING_PACKAGES_HINT, CommaSeparated, check_networks

_ORIGIN_PATTERN = re.compile(
    r"(https?)://(?:[a-z0-9](?:[a-z0-9.-]{0,180}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::([1-9]\d{0,4}))?"
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_RateLimit = Annotated[str, Field(pattern=r"^\d+ ?(/|per) ?(\d+ )?(second|minute|hour|day)s?$")]
_HOURS_PER_YEAR = 24 * 366
_REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")
RENAMED = {  # in 0.2.0; the old names are refused at start for one version
    "FORWARDED_HOPS": "TRUSTED_PROXY_HOPS",
    "FIGURES_PER_PERSON": "STATS_PER_RECIPIENT",
    "DATABASE_BUSY_SECONDS": "DATABASE_LOCK_TIMEOUT_SECONDS",
    "DRAFTS_PER_PERSON": "DRAFTS_PER_USER",
    "PLAN_GRACE_MINUTES": "SCHEDULE_GRACE_MINUTES",
    "EVENT_RULES_OTHERS": "EVENT_RULES_DEFAULT",
    "OIDC_CREATE_PEOPLE": "OIDC_CREATE_USERS",
    "OIDC_LINK_PEOPLE": "OIDC_LINK_USERS",
    "PROXY_CREATE_PEOPLE": "PROXY_CREATE_USERS",
}
_MIN_SIMILARITY = 0.84  # HEARTBEAT_SECOND and HEARTBEAT_SECONDS score 0.97, HOSTNAME and HOST 0.67
_MIN_NAME_CHARACTERS = 6  # PORTS or HOSTS may belong to another program


class SettingsError(Exception):
    """The settings are invalid. The message has one line for each problem."""


class Settings(SignInSettings, KafkaSettings, EmailSettings, PushSettings):
    """Strict and frozen. Names of durations end in their unit; sizes are in bytes."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    _misspelling_warnings: list[str] = PrivateAttr([])

    app_env: Literal["development", "production", "test"] = "development"
    """Environment. `production` refuses demo users, a weak key and plain-HTTP cookies."""
    app_name: str = Field("Broadcast", max_length=60)
    """The name shown on every page."""
    host: str = "127.0.0.1"
    """Address that gunicorn listens on."""
    port: int = Field(8000, ge=1, le=65535)
    """Port that gunicorn listens on."""
    web_concurrency: int = Field(2, ge=1, le=64)
    """Number of gunicorn workers."""
    max_requests: int = Field(0, ge=0, le=1_000_000_000)
    """A worker is replaced after about this many requests; 0 never. Its streams reconnect."""
    access_log: bool = False
    """1 writes a line for each request to standard output."""
    data_dir: Path = Path("var")
    """Folder for local data: database, key, Redis socket, metrics."""
    demo: bool = False
    """Create demo users and a few broadcasts at start (`make run` sets 1). Refused in production."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged."""
    log_format: Literal["console", "json"] = "console"
    """`json` writes one object per line."""

    otel_exporter_otlp_endpoint: str | None = Field(None, pattern=r"^https?://")
    """Collector that traces are sent to, as OTLP over HTTP; empty: no tracing."""

    database_url: str | None = Field(None, repr=False)
    """`postgresql://…` or `sqlite:////path/to/file`; without it, SQLite in `DATA_DIR`. Several servers: `postgresql://user@first:5432,second:5432/name` uses the writable one."""
    database_pool_size: int = Field(10, ge=1, le=200)
    """Database connections that a worker keeps; as many again under load."""
    database_lock_timeout_seconds: float = Field(2.5, gt=0, le=30)
    """How long a write waits for a locked database before it answers 503."""
    redis_url: str | None = None
    """`redis://…`, `unix://…`, `redis+sentinel://host,host/name` or `redis+cluster://host,host`; without it, workers poll the log once a second and limits count per worker."""

    secret_key: str | None = None
    """Signs cookies: 32 random characters or more; without it, the file `secret_key` in `DATA_DIR`."""
    secret_key_fallbacks: CommaSeparated = []
    """Older keys still accepted while rotating, comma-separated."""
    trusted_hosts: CommaSeparated = []
    """Host names accepted, comma-separated; empty accepts all."""
    trusted_proxy_hops: int = Field(0, ge=0, le=5)
    """Number of reverse proxies in front whose X-Forwarded-For and -Proto are trusted."""
    metrics_from: CommaSeparated = []
    """Addresses or networks that may ask for `/metrics` without a token, comma-separated, like `127.0.0.1`; no proxy may pass it on from there."""
    embed_origins: CommaSeparated = []
    """Sites whose pages may show an inbox (docs/embedding.md), like `https://intranet.example`, comma-separated; empty: none."""
    session_idle_hours: float = Field(24 * 7, gt=0, le=_HOURS_PER_YEAR)
    """A session unused for this long ends."""
    session_max_hours: float = Field(24 * 30, gt=0, le=_HOURS_PER_YEAR)
    """A session ends after this long even if it is used."""

    invitation_days: float = Field(7.0, gt=0, le=90)
    """How long an invitation to choose a first password is valid."""

    mandatory_categories: CommaSeparated = []
    """Categories whose alerts nobody can mute, comma-separated."""

    stats_per_recipient: bool = True
    """0 hides who has read a broadcast and rounds how many have; below ten recipients nothing is shown."""

    ratelimit_enabled: bool = True
    """0 switches every limit off."""
    limit_stream_per_user: _RateLimit = "200/minute"
    """Streams one user may open."""
    limit_stream_per_address: _RateLimit = "500/minute"
    """Streams one address may open; an IPv6 /64 is one address."""
    limit_publish_per_user: _RateLimit = "10/minute"
    """Send requests of one user: creating, sending, showing again, reminding, redriving."""
    limit_login_per_account: _RateLimit = "10/minute"
    """Sign-in attempts with one username from one address."""
    limit_login_per_address: _RateLimit = "60/minute"
    """Sign-in attempts from one address; an IPv6 /64 is one address."""
    limit_default: _RateLimit = "1200/minute"
    """All other requests together, of one user, or of one address when not signed in."""

    undo_seconds: float = Field(10.0, ge=0, le=60)
    """How long a broadcast sent from the console waits, so that it can be undone; 0 sends at once."""
    drafts_per_user: int = Field(100, ge=1, le=10000)
    """Drafts that one user may have at a time."""

    schedule_grace_minutes: float = Field(15.0, ge=1, le=10080)
    """How late a scheduled broadcast is still sent automatically; later ones wait for a decision."""

    tail_poll_seconds: float = Field(1.0, gt=0, le=60)
    """Longest time between reads of the log when no notification comes."""
    heartbeat_seconds: float = Field(15.0, gt=0, le=300)
    """Silence after which a stream gets a HEARTBEAT, ± 20 %."""
    stream_max_age_seconds: float = Field(600.0, gt=0, le=86400)
    """A stream ends after this long, ± 20 %, and is reopened."""
    stream_backlog_bytes: int = Field(65536, ge=1024, le=16_777_216)
    """Bytes waiting for one client before it is closed as a slow consumer."""
    streams_per_worker: int = Field(12000, ge=1, le=1_000_000)
    """Open streams a worker holds before it answers BUSY."""
    streams_per_user: int = Field(8, ge=1, le=1_000_000)
    """Open streams of one user in one worker."""
    streams_per_address: int = Field(1000, ge=1, le=1_000_000)
    """Open streams of one address in one worker."""
    replay_events: int = Field(10000, ge=1, le=100000)
    """Newest events kept in memory. A cursor further back is served from the log, up to 200 events; then RESET."""

    webhook_private_addresses: bool = False
    """1 lets webhooks go to addresses of the internal network, and by plain HTTP."""

    event_rules: Path | None = None
    """TOML file with the source rules; without it, only the contract applies."""
    event_rules_default: Literal["refuse", "allow"] = "refuse"
    """What happens to an event that matches no rule of `EVENT_RULES`. `allow` lets it use any audience and priority."""

    retention_log_days: int = Field(30, ge=0, le=3650)
    """Events older than this are deleted from the log; a client away for longer gets RESET. 0 keeps all."""
    retention_ended_days: int = Field(0, ge=0, le=36500)
    """Broadcasts that ended longer ago are deleted with their receipts. 0 keeps all."""
    retention_receipts_days: int = Field(0, ge=0, le=36500)
    """Receipts of broadcasts that ended longer ago are deleted. 0 keeps all."""

    @model_validator(mode="after")
    def _reject_unsafe(self) -> Self:
        hints = [
            *self._check_database_url(),
            *self._check_secret_keys(),
            *check_networks("METRICS_FROM", self.metrics_from),
            *self._check_embed_origins(),
            *self._check_redis_url(),
            *self.check_kafka(),
            *self.check_email(is_production=self.is_production),
            *self.check_push(),
            *self.check_sign_in(is_production=self.is_production, proxy_hops=self.trusted_proxy_hops),
        ]
        if self.is_production and self.demo:
            hints.append("DEMO: demo users have public passwords and are refused when APP_ENV=production. Set DEMO=0.")
        if self.otel_exporter_otlp_endpoint and find_spec("opentelemetry") is None:
            hints.append(f"OTEL_EXPORTER_OTLP_ENDPOINT: {MISSING_PACKAGES_HINT.format('otel')}")
        if hints:
            raise ValueError("\n".join(hints))
        return self

    def _check_secret_keys(self) -> list[str]:
        """Hints never contain a key."""
        named_keys = [("SECRET_KEY", self.secret_key)] if self.secret_key is not None else []
        named_keys += [("SECRET_KEY_FALLBACKS", key) for key in self.secret_key_fallbacks if self.is_production]
        return [
            f"{name}: it {problem}. Use a random one, for instance of `openssl rand -hex 32`."
            for name, key in named_keys
            if (problem := self._find_key_weakness(key))
        ]

    def _find_key_weakness(self, key: str) -> str | None:
        """What is wrong with a key; outside production, only whether it is too short."""
        problem = find_weakness(key)
        return problem if self.is_production or len(key) < MIN_KEY_CHARACTERS else None

    def _check_embed_origins(self) -> Iterator[str]:
        """An origin is compared with what browsers send, so it must be written in their form (RFC 6454)."""
        for origin in self.embed_origins:
            match = _ORIGIN_PATTERN.fullmatch(origin)
            if not match or match[2] == _DEFAULT_PORTS[match[1]] or int(match[2] or 0) > 65535:
                yield (
                    f"EMBED_ORIGINS: {origin!r} is not an origin; write it as browsers do: https://intranet.example or "
                    "http://localhost:5000, in lower case, without a path or the scheme's own port."
                )
            elif self.is_production and not origin.startswith("https:"):
                yield f"EMBED_ORIGINS: {origin} is plain HTTP, and refused when APP_ENV=production."

    def _check_database_url(self) -> Iterator[str]:
        try:
            self.database_uri  # noqa: B018 - read for what it raises
        except ValueError as problem:
            yield f"DATABASE_URL: {problem}"

    def _check_redis_url(self) -> Iterator[str]:
        url = urlsplit(self.redis_url or "")
        if self.redis_url and url.scheme not in _REDIS_SCHEMES:
            yield f"REDIS_URL: must begin with {', '.join(f'{scheme}://' for scheme in _REDIS_SCHEMES)}."
        elif url.scheme == "redis+sentinel" and not url.path.strip("/"):
            yield "REDIS_URL: name the master that the Sentinels watch: redis+sentinel://host:26379,host:26379/name."

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings from `environ` (default: the process's). Raises SettingsError that names every problem."""
        environ = os.environ if environ is None else environ
        if renamed := [f"{old} is now {RENAMED[old]}." for old in RENAMED if environ.get(old)]:
            raise SettingsError("\n".join(renamed))
        known = [name.upper() for name in cls.model_fields]
        values = {name.lower(): environ[name] for name in known if environ.get(name)}
        try:
            settings = cls(**values)
        except ValidationError as problem:
            raise SettingsError("\n".join(map(_describe_error, problem.errors()))) from None
        settings._misspelling_warnings = [
            f"{name} is not a setting and does nothing. Did you mean {nearest}?"
            for name in environ
            if name not in known and len(name) >= _MIN_NAME_CHARACTERS
            for nearest in get_close_matches(name, known, n=1, cutoff=_MIN_SIMILARITY)
        ]
        return settings

    @property
    def misspelling_warnings(self) -> list[str]:
        return self._misspelling_warnings

    @property
    def database_uri(self) -> str:
        """SQLAlchemy URL; the default is a file in `data_dir`."""
        if self.database_url:
            return database_url.normalize_url(self.database_url)
        return database_url.make_sqlite_url(self.data_dir / "broadcast.sqlite3")

    @property
    def database_path(self) -> Path | None:
        """The file of a SQLite database; None for a server."""
        uri = self.database_uri
        return database_url.get_sqlite_path(uri) if uri.startswith("sqlite") else None

    @property
    def link_base(self) -> str:
        """What links to this system begin with, where no request tells its address."""
        return self.public_url or f"http://{self.host}:{self.port}"

    def list_event_rule_warnings(self) -> list[str]:
        """Warnings, at start and from `doctor`, when events without a matching rule are allowed."""
        if self.event_rules is None or self.event_rules_default == "refuse":
            return []
        return ["EVENT_RULES_DEFAULT is allow: an event that matches no rule may use any audience and priority."]

    @property
    def is_production(self) -> bool:
        return self.app_env == "production"

    def read_secret_key(self) -> str:
        """Return SECRET_KEY or the content of its file. Raises SettingsError if there is neither."""
        if self.secret_key:
            return self.secret_key
        path = self.data_dir / "secret_key"
        try:
            key = path.read_text().strip()
        except OSError:
            raise SettingsError(
                f"SECRET_KEY: not set, and {path} cannot be read. `make run` creates that file."
            ) from None
        if problem := self._find_key_weakness(key):
            raise SettingsError(f"SECRET_KEY: the key in {path} {problem}. Delete it; `make run` creates another.")
        return key

    @property
    def metrics_networks(self) -> list[IPv4Network | IPv6Network]:
        return [ip_network(network) for network in self.metrics_from]


def _describe_error(problem: dict) -> str:
    if not problem["loc"]:
        return problem["msg"].removeprefix("Value error, ")
    name = str(problem["loc"][0])
    description = Settings.model_fields[name].description
    return f"{name.upper()}: {problem['msg']} (it is {problem['input']!r}). {description}"


SETTINGS = AppPart[Settings]("settings")
