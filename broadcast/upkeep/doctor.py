"""Looks at the system from inside and says what is wrong and what to do, for `flask doctor` and the console's health page.

Changes nothing. Every question has a deadline of its own, so a part that hangs is a finding and not a wait.
"""

import json
import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from ipaddress import ip_network
from typing import Literal
from urllib.request import urlopen

from flask import Flask

from broadcast.ingest import brokers
from broadcast.redis_url import AWAY, make_client
from broadcast.settings import Settings
from broadcast.store import broadcasts, database, log, schema

State = Literal["ok", "warning", "failure"]

_HEADROOM = 1000  # descriptors of a worker beside its streams
_CLOCK_WARNING_SECONDS, _CLOCK_FAILURE_SECONDS = 1.0, 30.0
_OVERDUE_SECONDS = 30.0
_LEAST_FREE = 0.05  # of the disk that DATA_DIR is on
_DEADLINE_SECONDS = 2.0
_WIDEST = 8  # a network with fewer fixed bits is no network of proxies


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one part, in a sentence for people."""

    part: str
    state: State
    sentence: str


def examine(app: Flask, *, is_thorough: bool = False) -> list[Finding]:
    """Everything that can be asked from here. Inside an application context.

    `is_thorough` also reads the whole of a SQLite file, which takes seconds and lets nothing else run.
    """
    settings: Settings = app.extensions["settings"]
    found = [*_settings(settings), *_files(settings), _disk(settings), *_database(is_thorough)]
    return [*found, _redis(settings), *_kafka(settings), *_organisation(settings)]


def _settings(settings: Settings) -> Iterator[Finding]:
    wrong = settings.misspelt
    if settings.is_production and not settings.trusted_hosts:
        wrong.append(
            "TRUSTED_HOSTS is empty, so every Host header is answered; name yours unless the proxy refuses others."
        )
    if settings.is_production and not settings.forwarded_hops:
        wrong.append("FORWARDED_HOPS is 0: behind a proxy every client has the proxy's address, and shares its limits.")
    if settings.is_production and settings.database_uri.startswith("sqlite"):
        wrong.append("SQLite serves one machine; set DATABASE_URL for more than one node.")
    if any(ip_network(network).prefixlen < _WIDEST for network in settings.proxy_sign_in_from):
        wrong.append("PROXY_SIGN_IN_FROM names a large network: whoever is in it can be anybody here.")
    if settings.is_production and not settings.ratelimit_enabled:
        wrong.append("RATELIMIT_ENABLED is 0: passwords can be guessed without a limit.")
    wrong += settings.event_doubts()
    if not wrong:
        yield Finding("settings", "ok", f"APP_ENV is {settings.app_env}; nothing in the settings is doubtful.")
    for sentence in wrong:
        yield Finding("settings", "warning", sentence)


def _files(settings: Settings) -> Iterator[Finding]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.streams_per_worker + _HEADROOM
    if 0 <= most < needed:
        yield Finding("files", "warning", f"{most:,} files may be open, {needed:,} are needed: raise ulimit -n.")
    else:
        yield Finding("files", "ok", f"A worker may open the {needed:,} files it may need.")


def _disk(settings: Settings) -> Finding:
    try:
        usage = shutil.disk_usage(settings.data_dir)
    except OSError as problem:
        return Finding("disk", "failure", f"DATA_DIR {settings.data_dir} cannot be used: {problem.strerror}.")
    free = usage.free / usage.total
    return Finding("disk", "ok" if free > _LEAST_FREE else "warning", f"{free:.0%} of the disk of DATA_DIR is free.")


def _database(is_thorough: bool) -> Iterator[Finding]:
    if problem := schema.database_problem(with_reason=True):
        yield Finding("database", "failure", f"{problem} See DATABASE_URL.")
        return
    fit = schema.fitness()
    if fit.problem or fit.notice:
        yield Finding("schema", "failure" if fit.problem else "warning", fit.problem or fit.notice)
    if fit.problem:
        return
    if problem := schema.encoding_problem():
        yield Finding("database", "failure", problem)
    head = log.head()
    yield Finding(
        "database", "ok", f"Answers and takes writes; event {head.seq:,} is the newest, its epoch {head.epoch}."
    )
    if not fit.notice:
        yield Finding("schema", "ok", "The tables are those that this version expects.")
    if is_thorough and (damage := schema.damage()):
        yield Finding("database", "failure", f"The file is damaged: {damage}. Stop the system and restore a backup.")
    yield _clock(database.now(), broadcasts.next_due_at())


def _clock(shared: datetime, due_at: datetime | None) -> Finding:
    off = abs((shared - datetime.now(UTC)).total_seconds())
    if off > _CLOCK_WARNING_SECONDS:
        state: State = "failure" if off > _CLOCK_FAILURE_SECONDS else "warning"
        return Finding("clock", state, f"This machine and the database differ by {off:.1f} s: set up NTP on both.")
    overdue = (shared - due_at).total_seconds() if due_at else 0.0
    if overdue > _OVERDUE_SECONDS:
        return Finding("clock", "failure", f"A planned broadcast is {overdue:.0f} s overdue: is any worker running?")
    return Finding("clock", "ok", "Runs with the database's, and nothing planned is overdue.")


def _redis(settings: Settings) -> Finding:
    if not settings.redis_url:
        return Finding(
            "redis", "warning", "REDIS_URL is not set: workers look once a second, and count limits each alone."
        )
    try:
        make_client(settings.redis_url, timeout_seconds=_DEADLINE_SECONDS).ping()
    except AWAY as problem:
        return Finding(
            "redis", "failure", f"Redis does not answer ({type(problem).__name__}); delivery takes a second."
        )
    return Finding("redis", "ok", "Answers.")


def _kafka(settings: Settings) -> Iterator[Finding]:
    if not settings.kafka_bootstrap_servers:
        return
    hasty = settings.model_copy(update={"kafka_request_timeout_ms": int(_DEADLINE_SECONDS * 1000)})
    if problem := brokers.examine(hasty):
        yield Finding("kafka", "failure", f"{', '.join(settings.kafka_bootstrap_servers)}: {problem}")
    else:
        topics = ", ".join(settings.kafka_topics)
        yield Finding("kafka", "ok", f"Signed in to the brokers, which have {topics}.")


def _organisation(settings: Settings) -> Iterator[Finding]:
    if not settings.oidc_issuer:
        return
    address = f"{settings.oidc_issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        with urlopen(address, timeout=_DEADLINE_SECONDS) as answer:
            issuer = json.load(answer)["issuer"]
    except (OSError, HTTPException, ValueError, LookupError, TypeError) as problem:
        yield Finding("sign-in", "failure", f"{address} does not describe a provider: {problem}.")
        return
    if issuer.rstrip("/") != settings.oidc_issuer.rstrip("/"):
        yield Finding("sign-in", "failure", f"The provider calls itself {issuer}: write OIDC_ISSUER so.")
    else:
        yield Finding("sign-in", "ok", "The organisation's provider answers.")
