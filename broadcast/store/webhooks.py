"""Webhook endpoints, their deliveries and the attempts: read, claimed, finished and deleted."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, delete, exists, func, literal_column, select, update
from sqlalchemy.orm import Session, aliased, defer

from broadcast.domain.webhook_events import WebhookType
from broadcast.store.database import db
from broadcast.store.deliveries import QueueState, trim_reason
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.models import (
    EscalationStep,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)

DELETE_BATCH_ROWS = 500
_WAITING = literal_column("'WAITING'")  # no parameter: the indexes of what waits are for this value
_IS_OPEN = (WebhookEndpoint.paused_at.is_(None), WebhookEndpoint.gone_at.is_(None))


class ClaimedWebhook(NamedTuple):
    """A delivery that this worker alone may send until the end of its lease, with what its endpoint needs."""

    id: int
    endpoint_id: int
    url: str
    secrets: tuple[str, ...]
    message_id: str
    body: str
    attempts: int
    created_at: datetime


class AttemptResult(NamedTuple):
    """What one request came to; see `WebhookAttempt`."""

    status: int | None
    duration_ms: int
    answer: str


def list_endpoints() -> list[WebhookEndpoint]:
    return list(db.session.scalars(select(WebhookEndpoint).order_by(WebhookEndpoint.id)))


def get_endpoint(endpoint_id: int) -> WebhookEndpoint | None:
    return db.session.get(WebhookEndpoint, endpoint_id, populate_existing=True)


def count_endpoints(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(WebhookEndpoint))


def list_subscribers(session: Session, type_: WebhookType) -> list[int]:
    """Ids of the endpoints that get events of this type. Their types are JSON, which each database searches differently."""
    query = select(WebhookEndpoint.id, WebhookEndpoint.event_types).where(WebhookEndpoint.gone_at.is_(None))
    return [endpoint_id for endpoint_id, types in session.execute(query.order_by(WebhookEndpoint.id)) if type_ in types]


def record_event(
    session: Session, type_: WebhookType, items: Sequence[tuple[int, Mapping[str, Any]]], *, at: datetime
) -> None:
    """Record what happened to broadcasts, as (broadcast id, data), if any endpoint wants to know."""
    if items and list_subscribers(session, type_):
        session.add_all(
            WebhookEvent(type=type_.value, broadcast_id=broadcast_id, data=dict(data), at=at)
            for broadcast_id, data in items
        )


def record_escalation(session: Session, step: EscalationStep, *, at: datetime) -> None:
    """Record that a step of a ladder has been planned to its end, if it reaches anybody."""
    if step.people and list_subscribers(session, WebhookType.ESCALATED):
        data = {"channel": step.channel, "revision": step.revision, "people": step.people}
        record_event(session, WebhookType.ESCALATED, [(step.broadcast_id, data)], at=at)


def _due_conditions(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Due deliveries. One waits as long as an earlier one about the same broadcast does, so that they arrive in order."""
    earlier = aliased(WebhookDelivery)
    is_blocked = exists().where(
        earlier.endpoint_id == WebhookDelivery.endpoint_id,
        earlier.broadcast_id == WebhookDelivery.broadcast_id,
        earlier.state == _WAITING,
        earlier.id < WebhookDelivery.id,
    )
    return WebhookDelivery.state == _WAITING, WebhookDelivery.due_at <= now, ~is_blocked


def list_due_endpoint_ids(*, now: datetime) -> list[int]:
    """Endpoints that have something to send, and are neither paused nor gone."""
    has_due = exists().where(WebhookDelivery.endpoint_id == WebhookEndpoint.id, *_due_conditions(now))
    return list(db.session.scalars(select(WebhookEndpoint.id).where(*_IS_OPEN, has_due).order_by(WebhookEndpoint.id)))


def claim_next(session: Session, endpoint_id: int, *, now: datetime, until: datetime) -> ClaimedWebhook | None:
    """Claim the endpoint's next due delivery until `until`; None if there is none, or the endpoint is paused or gone."""
    endpoint = session.scalar(select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id, *_IS_OPEN))
    if endpoint is None:
        return None
    conditions = (WebhookDelivery.endpoint_id == endpoint_id, *_due_conditions(now))
    query = select(WebhookDelivery).where(*conditions).order_by(WebhookDelivery.due_at, WebhookDelivery.id).limit(1)
    row: WebhookDelivery | None = session.scalar(query.with_for_update(skip_locked=True))
    if row is None:
        return None
    row.attempts, row.due_at = row.attempts + 1, until
    secrets = list_secrets(endpoint, now=now)
    fields = (row.message_id, row.body, row.attempts, row.created_at)
    return ClaimedWebhook(row.id, endpoint.id, endpoint.url, secrets, *fields)


def list_secrets(endpoint: WebhookEndpoint, *, now: datetime) -> tuple[str, ...]:
    """What a request is signed with, the newest first."""
    is_previous_valid = endpoint.previous_secret_until is not None and now < endpoint.previous_secret_until
    return (endpoint.secret, endpoint.previous_secret) if is_previous_valid else (endpoint.secret,)


def finish(session: Session, claimed: ClaimedWebhook, state: str, *, at: datetime, reason: str | None = None) -> None:
    """Record the outcome of a claimed delivery, unless it is no longer this worker's."""
    _update_claimed(session, claimed, state=state, ended_at=at, reason=trim_reason(reason))


def postpone(session: Session, claimed: ClaimedWebhook, due_at: datetime, *, reason: str) -> None:
    """Give a claimed delivery back, to be sent at `due_at`."""
    _update_claimed(session, claimed, due_at=due_at, reason=trim_reason(reason))


def _update_claimed(session: Session, claimed: ClaimedWebhook, **values: Any) -> None:
    is_still_claimed = (
        WebhookDelivery.id == claimed.id,
        WebhookDelivery.state == _WAITING,
        WebhookDelivery.attempts == claimed.attempts,
    )
    session.execute(update(WebhookDelivery.__table__).where(*is_still_claimed).values(values))


def add_attempt(session: Session, delivery_id: int, result: AttemptResult, *, at: datetime) -> bool:
    """Log one request; False if the delivery has been deleted meanwhile, and its endpoint perhaps with it."""
    if session.get(WebhookDelivery, delivery_id, with_for_update={"key_share": True}) is None:
        return False
    session.add(WebhookAttempt(delivery_id=delivery_id, at=at, **result._asdict()))
    return True


def set_problem(session: Session, endpoint_id: int, problem: str | None, *, at: datetime) -> None:
    """Record that the endpoint does not take what is sent and why, or that it does again (None)."""
    row = session.get(WebhookEndpoint, endpoint_id)
    if row is not None and (problem or row.failing_since):
        row.failing_since = (row.failing_since or at) if problem else None
        row.problem = trim_reason(problem)


def mark_gone(session: Session, endpoint_id: int, *, reason: str, at: datetime) -> None:
    """Send nothing to this endpoint any more, and cancel what waits."""
    statement = update(WebhookEndpoint.__table__).where(WebhookEndpoint.id == endpoint_id)
    session.execute(statement.values(gone_at=at, failing_since=None, problem=trim_reason(reason)))
    is_waiting = (WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.state == _WAITING)
    cancelled = {"state": "CANCELLED", "ended_at": at, "reason": trim_reason(reason)}
    statement = update(WebhookDelivery.__table__).where(*is_waiting).values(cancelled)
    session.execute(statement, execution_options=RUN_IN_THREAD)


def list_deliveries(endpoint_id: int, *, before: int | None = None, limit: int) -> list[WebhookDelivery]:
    """Deliveries of an endpoint with id < `before`, newest first, without their bodies."""
    query = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == endpoint_id)
    if before is not None:
        query = query.where(WebhookDelivery.id < before)
    query = query.options(defer(WebhookDelivery.body)).order_by(WebhookDelivery.id.desc()).limit(limit)
    return list(db.session.scalars(query))


def get_delivery(endpoint_id: int, delivery_id: int) -> WebhookDelivery | None:
    is_wanted = (WebhookDelivery.id == delivery_id, WebhookDelivery.endpoint_id == endpoint_id)
    return db.session.scalar(select(WebhookDelivery).where(*is_wanted))


def list_attempts(delivery_id: int, *, limit: int) -> list[WebhookAttempt]:
    """The newest first."""
    query = select(WebhookAttempt).where(WebhookAttempt.delivery_id == delivery_id)
    return list(db.session.scalars(query.order_by(WebhookAttempt.id.desc()).limit(limit)))


def replay(session: Session, endpoint_id: int, delivery_id: int, *, now: datetime) -> bool:
    """Send a delivery again that has ended, under its id; True if it was put into the queue."""
    has_ended = (
        WebhookDelivery.id == delivery_id,
        WebhookDelivery.endpoint_id == endpoint_id,
        WebhookDelivery.state != "WAITING",
    )
    values = {"state": "WAITING", "due_at": now, "created_at": now, "ended_at": None, "reason": None}
    return session.execute(update(WebhookDelivery.__table__).where(*has_ended).values(values)).rowcount > 0


def delete_deliveries(session: Session, endpoint_id: int) -> int:
    """Delete deliveries of an endpoint, at most DELETE_BATCH_ROWS; return how many."""
    ids = select(WebhookDelivery.id).where(WebhookDelivery.endpoint_id == endpoint_id).limit(DELETE_BATCH_ROWS)
    statement = delete(WebhookDelivery.__table__).where(WebhookDelivery.id.in_(ids))
    return session.execute(statement, execution_options=RUN_IN_THREAD).rowcount


def measure_queue(*, now: datetime) -> QueueState:
    """All endpoints together; what paused ones keep waits and is not due."""
    is_waiting = WebhookDelivery.state == _WAITING
    waiting = db.session.scalar(select(func.count()).where(is_waiting), execution_options=RUN_IN_THREAD)
    is_due = (is_waiting, WebhookDelivery.due_at <= now)
    query = select(func.count(), func.min(WebhookDelivery.due_at)).where(*is_due)
    is_open = WebhookDelivery.endpoint_id.in_(select(WebhookEndpoint.id).where(*_IS_OPEN))
    return QueueState(waiting, *db.session.execute(query.where(is_open), execution_options=RUN_IN_THREAD).one())


def count_waiting_by_endpoint() -> dict[int, int]:
    query = select(WebhookDelivery.endpoint_id, func.count()).where(WebhookDelivery.state == _WAITING)
    rows = db.session.execute(query.group_by(WebhookDelivery.endpoint_id), execution_options=RUN_IN_THREAD)
    return dict(map(tuple, rows))
