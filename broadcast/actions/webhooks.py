"""What administrators do with webhook endpoints: add, change, pause and delete them, rotate secrets, replay deliveries.

The audit names the host of an endpoint: some receivers have a secret in the path.
"""

import base64
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import gevent
from sqlalchemy.orm import Session

from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.config.settings import SETTINGS
from broadcast.domain.actor import Actor
from broadcast.domain.outgoing_url import AddressRefused, parse_url
from broadcast.domain.permissions import Permission
from broadcast.domain.webhook_events import WebhookType
from broadcast.store import audit, webhook_planning, webhooks
from broadcast.store.database import ROW_LOCK
from broadcast.store.models import WebhookEndpoint
from broadcast.store.transactions import write_transaction

MAX_ENDPOINTS = 50
PREVIOUS_SECRET_VALIDITY = timedelta(hours=24)
_SECRET_BYTES = 32
_PAUSE_SECONDS = 0.005  # between transactions: other writers go first


def create_endpoint(url: str, event_types: Iterable[str], *, by: Actor, now: datetime) -> tuple[int, str]:
    """Add an endpoint, which gets what happens from now on; return its id and its secret, which is shown only once.

    Raises Forbidden, Invalid, TemporarilyUnavailable.
    """
    by.require(Permission.OPERATE)
    url, types, secret = _check_url(url), _check_types(event_types), _create_secret()
    with write_transaction() as session:
        if webhooks.count_endpoints(session) >= MAX_ENDPOINTS:
            raise Invalid({"url": f"There are {MAX_ENDPOINTS} endpoints already. Delete one first."})
        seq = webhook_planning.get_head_seq(session)
        row = WebhookEndpoint(url=url, event_types=types, secret=secret, planned_seq=seq, created_at=now)
        session.add(row)
        session.flush()
        detail = {"host": urlsplit(url).netloc, "types": types}
        audit.record(session, by, "webhook.created", "webhook", row.id, now=now, **detail)
        return row.id, secret


def update_endpoint(
    endpoint_id: int,
    *,
    by: Actor,
    now: datetime,
    url: str | None = None,
    event_types: Iterable[str] | None = None,
    is_paused: bool | None = None,
) -> None:
    """Change what is given. While it is paused, everything waits in the queue. Raises Forbidden, Invalid, NotFound,
    TemporarilyUnavailable.
    """
    by.require(Permission.OPERATE)
    new_url = None if url is None else _check_url(url)
    types = None if event_types is None else _check_types(event_types)
    with write_transaction() as session:
        row = _get_for_update(session, endpoint_id)
        detail = {}
        if new_url is not None and new_url != row.url:
            row.url, row.failing_since, row.problem = new_url, None, None
            detail["host"] = urlsplit(new_url).netloc
        if types is not None and types != row.event_types:
            row.event_types = detail["types"] = types
        if detail:
            audit.record(session, by, "webhook.changed", "webhook", row.id, now=now, **detail)
        if is_paused is not None and is_paused != (row.paused_at is not None):
            row.paused_at = now if is_paused else None
            action = "webhook.paused" if is_paused else "webhook.resumed"
            audit.record(session, by, action, "webhook", row.id, now=now)


def enable_endpoint(endpoint_id: int, *, by: Actor, now: datetime) -> None:
    """Send to an endpoint again that has answered 410, beginning with what happens from now on; idempotent.

    Raises Forbidden, NotFound, TemporarilyUnavailable.
    """
    by.require(Permission.OPERATE)
    with write_transaction() as session:
        row = _get_for_update(session, endpoint_id)
        if row.gone_at is None:
            return
        row.gone_at, row.problem, row.planned_seq = None, None, webhook_planning.get_head_seq(session)
        audit.record(session, by, "webhook.enabled", "webhook", row.id, now=now)


def rotate_secret(endpoint_id: int, *, by: Actor, now: datetime) -> str:
    """Replace the secret and return the new one, which is shown only once. The previous one signs beside it for a day.

    Raises Forbidden, NotFound, TemporarilyUnavailable.
    """
    by.require(Permission.OPERATE)
    secret = _create_secret()
    with write_transaction() as session:
        row = _get_for_update(session, endpoint_id)
        row.previous_secret, row.previous_secret_until = row.secret, now + PREVIOUS_SECRET_VALIDITY
        row.secret = secret
        audit.record(session, by, "webhook.secret_rotated", "webhook", row.id, now=now)
    return secret


def replay_delivery(endpoint_id: int, delivery_id: int, *, by: Actor, now: datetime) -> None:
    """Send a delivery again that has ended, under its id. Raises Forbidden, NotFound, Conflict, TemporarilyUnavailable."""
    by.require(Permission.OPERATE)
    with write_transaction() as session:
        row = _get_for_update(session, endpoint_id)
        if row.gone_at is not None:
            raise Conflict("The endpoint has answered 410 Gone. Enable it first.")
        if webhooks.get_delivery(endpoint_id, delivery_id) is None:
            raise NotFound("There is no such delivery.")
        if not webhooks.replay(session, endpoint_id, delivery_id, now=now):
            raise Conflict("This delivery still waits to be sent.")
        audit.record(session, by, "webhook.replayed", "webhook", row.id, now=now, delivery=delivery_id)


def delete_endpoint(endpoint_id: int, *, by: Actor, now: datetime) -> None:
    """Delete an endpoint and its deliveries, in short transactions. Raises Forbidden, NotFound, TemporarilyUnavailable."""
    by.require(Permission.OPERATE)
    with write_transaction() as session:
        row = _get_for_update(session, endpoint_id)
        detail = {"host": urlsplit(row.url).netloc}
        audit.record(session, by, "webhook.deleted", "webhook", row.id, now=now, **detail)
        row.gone_at = row.gone_at or now  # from now on no deliveries are made
    deleted_rows = 1
    while deleted_rows:
        with write_transaction() as session:
            deleted_rows = webhooks.delete_deliveries(session, endpoint_id)
        gevent.sleep(_PAUSE_SECONDS)
    with write_transaction() as session:
        session.delete(_get_for_update(session, endpoint_id))


def _get_for_update(session: Session, endpoint_id: int) -> WebhookEndpoint:
    row = session.get(WebhookEndpoint, endpoint_id, with_for_update=ROW_LOCK)
    if row is None:
        raise NotFound("There is no such webhook.")
    return row


def _create_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _check_url(url: str) -> str:
    """The address, without spaces around it. Where it leads is checked when something is sent. Raises Invalid."""
    try:
        parse_url(url.strip(), may_be_private=SETTINGS.current.webhook_private_addresses)
    except AddressRefused as problem:
        raise Invalid({"url": str(problem)}) from None
    return url.strip()


def _check_types(names: Iterable[str]) -> list[str]:
    chosen = set(names)
    if unknown := chosen - set(WebhookType):
        raise Invalid({"eventTypes": f"{min(unknown)[:60]} is not an event type; use {', '.join(WebhookType)}."})
    if not chosen:
        raise Invalid({"eventTypes": "Choose at least one event type."})
    if WebhookType.ACKNOWLEDGED in chosen and not SETTINGS.current.stats_per_recipient:
        sentence = f"{WebhookType.ACKNOWLEDGED} names who has acknowledged, which STATS_PER_RECIPIENT=0 forbids."
        raise Invalid({"eventTypes": sentence})
    return [name.value for name in WebhookType if name in chosen]


def record_acknowledgements(
    session: Session, by: Actor, acknowledgements: Sequence[tuple[int, int]], *, at: datetime
) -> None:
    """Tell the endpoints that want it that a user has acknowledged broadcasts, as (id, revision)."""
    if SETTINGS.current.stats_per_recipient:
        items = [(id_, {"userId": by.user_id, "revision": revision}) for id_, revision in acknowledgements]
        webhooks.record_event(session, WebhookType.ACKNOWLEDGED, items, at=at)
