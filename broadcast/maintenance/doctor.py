"""Checks the system and says what is wrong and how to fix it, for `flask doctor` and the console's health page.

`check_public_url` looks from outside: does the system answer through its proxy, and does a stream arrive in time?

Changes nothing. Every check has a timeout, so a part that hangs is a finding and does not block.
"""

import http.client
import json
import resource
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Literal
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

from flask import Flask

from broadcast.bus.redis_client import CONNECTION_ERRORS, describe_failure, make_client
from broadcast.config.settings import SETTINGS, Settings
from broadcast.ingest.kafka import broker_check
from broadcast.store import broadcasts, database, log, schema

FindingState = Literal["ok", "warning", "failure"]

_DESCRIPTOR_HEADROOM = 1000  # descriptors of a worker besides its streams
_CLOCK_WARNING_SECONDS, _CLOCK_FAILURE_SECONDS = 1.0, 30.0
_OVERDUE_FAILURE_SECONDS = 30.0
_MIN_FREE_SHARE = 0.05  # of the disk with DATA_DIR
_TIMEOUT_SECONDS = 2.0
_PUBLIC_TIMEOUT_SECONDS = 5.0
_MAX_FIRST_EVENT_SECONDS = 2.0  # CONNECTED comes first on a stream; a proxy that delays it buffers everything
_WITHOUT_REDIS = "messages take up to a second, and each worker counts limits by itself"
_MIN_PREFIX_BITS = 8  # a network with a shorter prefix is too large for proxies


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, as a sentence for people."""

    part: str
    state: FindingState
    sentence: str


def run_checks(app: Flask, *, is_thorough: bool = False) -> list[Finding]:
    """Run every check. `is_thorough` reads the whole SQLite file too: it takes seconds and blocks other greenlets."""
    settings = SETTINGS.of(app)
    own_parts = [*_check_settings(settings), _check_open_files(settings), _check_disk(settings)]
    findings = [*own_parts, *_check_database(is_thorough), _check_redis(settings), *_check_kafka(settings)]
    if settings.oidc_issuer:
        problem = _find_provider_problem(settings.oidc_issuer)
        sentence = problem or "The organisation's provider answers."
        findings.append(Finding("sign-in", "failure" if problem else "ok", sentence))
    return findings


def _check_settings(settings: Settings) -> Iterator[Finding]:
    warnings = [*settings.misspelling_warnings]
    if settings.is_production and not settings.trusted_hosts:
        warnings.append(
            "TRUSTED_HOSTS is empty, so every Host header is accepted. List your host names, unless the proxy refuses others."
        )
    if settings.is_production and not settings.trusted_proxy_hops:
        warnings.append(
            "TRUSTED_PROXY_HOPS is 0. Behind a proxy, all clients share the proxy's address and its limits: "
            "set it to the number of proxies."
        )
    if settings.is_production and settings.database_uri.startswith("sqlite"):
        warnings.append(
            "The database is a SQLite file, which serves one machine. For more nodes, set DATABASE_URL to PostgreSQL."
        )
    if any(ip_network(network).prefixlen < _MIN_PREFIX_BITS for network in settings.proxy_sign_in_from):
        warnings.append(
            "PROXY_SIGN_IN_FROM names a large network, and anyone in it can sign in as anybody. Use the proxy's own address."
        )
    if settings.is_production and not settings.ratelimit_enabled:
        warnings.append("RATELIMIT_ENABLED is 0, so passwords can be guessed without limit. Set it to 1.")
    warnings += settings.list_event_rule_warnings()
    if not warnings:
        yield Finding("settings", "ok", f"APP_ENV is {settings.app_env}. The settings are fine.")
    for sentence in warnings:
        yield Finding("settings", "warning", sentence)


def _check_open_files(settings: Settings) -> Finding:
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.streams_per_worker + _DESCRIPTOR_HEADROOM
    if hard_limit < 0 or hard_limit >= needed:  # negative: no limit
        return Finding("files", "ok", f"A worker may open as many files as it needs ({needed:,}).")
    sentence = f"A worker may open {hard_limit:,} files and needs up to {needed:,}. Raise `ulimit -n`."
    return Finding("files", "warning", sentence)


def _check_disk(settings: Settings) -> Finding:
    try:
        usage = shutil.disk_usage(settings.data_dir)
    except OSError as problem:
        sentence = f"DATA_DIR {settings.data_dir} cannot be used: {problem.strerror}. Create it, or set another."
        return Finding("disk", "failure", sentence)
    free_share = usage.free / usage.total
    if free_share <= _MIN_FREE_SHARE:
        return Finding("disk", "warning", f"Only {free_share:.0%} of the disk of DATA_DIR is free. Make room on it.")
    return Finding("disk", "ok", f"{free_share:.0%} of the disk of DATA_DIR is free.")


def _check_database(is_thorough: bool) -> Iterator[Finding]:
    if problem := schema.find_database_problem(should_include_reason=True):
        yield Finding("database", "failure", problem)
        return
    fitness = schema.check_compatibility()
    if fitness.problem or fitness.notice:
        yield Finding("schema", "failure" if fitness.problem else "warning", fitness.problem or fitness.notice)
    if fitness.problem:
        return
    if problem := schema.find_encoding_problem():
        yield Finding("database", "failure", problem)
    head = log.get_head()
    newest_event = f"Its newest event is {head.seq:,} of epoch {head.epoch}."
    yield Finding("database", "ok", f"The database answers and takes writes. {newest_event}")
    if not fitness.notice:
        yield Finding("schema", "ok", "The tables match this version.")
    if is_thorough and (damage := schema.find_corruption()):
        sentence = f"The database file is damaged: {damage}. Stop the system and restore a backup."
        yield Finding("database", "failure", sentence)
    yield _check_clock(database.get_current_time(), broadcasts.get_next_due_at())


def _check_clock(database_time: datetime, due_at: datetime | None) -> Finding:
    skew_seconds = abs((database_time - datetime.now(UTC)).total_seconds())
    if skew_seconds > _CLOCK_WARNING_SECONDS:
        state: FindingState = "failure" if skew_seconds > _CLOCK_FAILURE_SECONDS else "warning"
        sentence = f"The clocks here and at the database differ by {skew_seconds:.1f} s. Set up NTP on both."
        return Finding("clock", state, sentence)
    overdue_seconds = (database_time - due_at).total_seconds() if due_at else 0.0
    if overdue_seconds > _OVERDUE_FAILURE_SECONDS:
        advice = "Check that a node runs, and look for clock.failed in its log."
        return Finding("clock", "failure", f"A scheduled broadcast is {overdue_seconds:.0f} s overdue. {advice}")
    return Finding("clock", "ok", "The clock agrees with the database's, and no scheduled broadcast is overdue.")


def _check_redis(settings: Settings) -> Finding:
    if settings.redis_url:
        if reason := _find_redis_problem(settings.redis_url):
            sentence = f"Redis {reason}. Start it, or correct REDIS_URL. Until then {_WITHOUT_REDIS}."
            return Finding("redis", "failure", sentence)
        return Finding("redis", "ok", "Redis answers.")
    socket_path = (settings.data_dir / "redis.sock").resolve()
    if socket_path.is_socket() and not _find_redis_problem(f"unix://{quote(str(socket_path))}"):
        return Finding("redis", "ok", "Redis comes from the launcher (`make run`) and answers.")
    sentence = f"Redis is not set up: {_WITHOUT_REDIS}. `make run` starts one; elsewhere, set REDIS_URL."
    return Finding("redis", "warning", sentence)


def _find_redis_problem(url: str) -> str | None:
    """Why Redis at `url` is unusable, as the rest of a sentence; None when it answers."""
    try:
        make_client(url, timeout_seconds=_TIMEOUT_SECONDS).ping()
    except CONNECTION_ERRORS as problem:
        return describe_failure(problem)
    return None


def _check_kafka(settings: Settings) -> Iterator[Finding]:
    if not settings.kafka_bootstrap_servers:
        return
    impatient_settings = settings.model_copy(update={"kafka_request_timeout_ms": int(_TIMEOUT_SECONDS * 1000)})
    if problem := broker_check.check_brokers(impatient_settings):
        yield Finding("kafka", "failure", f"{', '.join(settings.kafka_bootstrap_servers)}: {problem}")
    else:
        topics = ", ".join(settings.kafka_topics)
        yield Finding("kafka", "ok", f"The brokers answer and have {topics}.")


def _find_provider_problem(issuer: str) -> str | None:
    discovery_url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        with urlopen(discovery_url, timeout=_TIMEOUT_SECONDS) as response:
            own_name = str(json.load(response)["issuer"])
    except HTTPError as problem:
        return f"{discovery_url} answers {problem.code}. Correct OIDC_ISSUER."
    except (OSError, http.client.HTTPException):
        return f"{discovery_url} cannot be reached. Start the provider, or correct OIDC_ISSUER."
    except (ValueError, LookupError, TypeError):
        return f"{discovery_url} does not describe an OpenID provider. Correct OIDC_ISSUER."
    is_same = own_name.rstrip("/") == issuer.rstrip("/")
    return None if is_same else f"The provider calls itself {own_name}. Set OIDC_ISSUER to exactly that."


def check_public_url(url: str, *, token: str | None) -> list[Finding]:
    """Request /healthz at `url`, and with a token open a stream. Changes nothing."""
    try:
        status, _ = _fetch_public(url, "/healthz", {})
    except (OSError, http.client.HTTPException, ValueError) as problem:
        return [Finding("proxy", "failure", f"{url} cannot be reached: {_describe_connection_error(problem)}.")]
    if status != 200:
        sentence = f"{url}/healthz answers {status} instead of 200. Check the proxy and the nodes."
        return [Finding("proxy", "failure", sentence)]
    findings = [Finding("proxy", "ok", f"{url} answers.")]
    return [*findings, Finding("stream", *_check_stream(url, token))] if token else findings


def _check_stream(url: str, token: str) -> tuple[FindingState, str]:
    started_at = time.monotonic()
    try:
        status, body = _fetch_public(
            url, "/api/sse/connect", {"Authorization": f"Bearer {token}"}, until=b"event: CONNECTED"
        )
    except TimeoutError:
        advice = "the proxy buffers the stream. Turn its buffering off."
        return "failure", f"Nothing came through in {_PUBLIC_TIMEOUT_SECONDS:.0f} s: {advice}"
    except (OSError, http.client.HTTPException, ValueError) as problem:
        return "failure", f"The stream broke off: {_describe_connection_error(problem)}."
    elapsed_seconds = time.monotonic() - started_at
    if status == 401:
        return "failure", "The token is not valid. Create one with `flask --app app create-token`."
    if status == 403:
        return "failure", "The token may not open streams. Create one with the scope inbox."
    if status != 200 or b"event: CONNECTED" not in body:
        return "failure", f"No stream was opened (status {status}). The log of the node says why."
    if elapsed_seconds > _MAX_FIRST_EVENT_SECONDS:
        return "warning", f"The first event took {elapsed_seconds:.1f} s. Check the proxy for buffering."
    return "ok", f"The first event came through after {elapsed_seconds:.2f} s."


def _describe_connection_error(problem: Exception) -> str:
    """A connection error, as the end of a sentence."""
    match problem:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({problem.verify_message})"
        case ssl.SSLError():
            return "the server there does not speak TLS"
        case TimeoutError():
            return f"nothing answers within {_PUBLIC_TIMEOUT_SECONDS:.0f} s"
        case ConnectionRefusedError():
            return "nothing listens there"
        case socket.gaierror():
            return "its host name is not known"
        case http.client.RemoteDisconnected() | http.client.IncompleteRead() | ConnectionError():
            return "the connection was closed"
        case http.client.HTTPException():
            return "the server there does not speak HTTP"
        case ValueError():
            return "the address or the token cannot be read"
    return (problem.strerror if isinstance(problem, OSError) else None) or "the connection failed"


def _fetch_public(url: str, path: str, headers: dict[str, str], *, until: bytes = b"") -> tuple[int, bytes]:
    """Status and body, read until it contains `until`. Verifies the certificate."""
    url_parts = urlsplit(url)
    make_connection = http.client.HTTPSConnection if url_parts.scheme == "https" else http.client.HTTPConnection
    connection = make_connection(url_parts.netloc, timeout=_PUBLIC_TIMEOUT_SECONDS)
    try:
        connection.request("GET", url_parts.path.rstrip("/") + path, headers=headers)
        response = connection.getresponse()
        body = b""
        while data := response.read1(4096):
            body += data
            if until and until in body:
                break
        return response.status, body
    finally:
        connection.close()
