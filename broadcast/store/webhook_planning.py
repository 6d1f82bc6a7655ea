"""Makes the deliveries of webhooks: from the log in its order, and from what happened and is in no log.

Each endpoint has read the log up to its `planned_seq`. Its deliveries are made in the transaction that raises the
number, so that each event has its delivery exactly once, whatever is killed.
"""

import secrets
from collections import defaultdict
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from broadcast.domain import clock
from broadcast.domain.events import EventType
from broadcast.domain.webhook_events import LOGGED_TYPES, WebhookType, encode_body, get_type
from broadcast.store.database import ROW_LOCK, build_insert, db
from broadcast.store.models import Broadcast, LogEvent, LogHead, User, WebhookDelivery, WebhookEndpoint, WebhookEvent
from broadcast.store.webhooks import list_subscribers

EVENTS_PER_BATCH = 50  # a text may have 64 KiB, and as much HTML
UNLOGGED_PER_BATCH = 500
BATCH_SECONDS = 10.0  # for so long, what is in no log is collected
_SKIP_LOCKED = ROW_LOCK | {"skip_locked": True}


def list_behind() -> list[int]:
    """Ids of the endpoints for which the log has new events."""
    head_seq = select(LogHead.seq).scalar_subquery()
    is_behind = (WebhookEndpoint.gone_at.is_(None), WebhookEndpoint.planned_seq != head_seq)
    return list(db.session.scalars(select(WebhookEndpoint.id).where(*is_behind).order_by(WebhookEndpoint.id)))


def plan_log(session: Session, endpoint_id: int, *, now: datetime) -> bool:
    """Make an endpoint's deliveries of the next events of the log; at most EVENTS_PER_BATCH are read.

    True when there are more. An endpoint that another worker is planning is left out.
    """
    endpoint = session.get(WebhookEndpoint, endpoint_id, with_for_update=_SKIP_LOCKED)
    if endpoint is None or endpoint.gone_at is not None:
        return False
    head_seq = session.scalar(select(LogHead.seq))
    through = min(head_seq, endpoint.planned_seq + EVENTS_PER_BATCH)
    query = (
        select(LogEvent.epoch, LogEvent.seq, LogEvent.type, LogEvent.payload, LogEvent.at, Broadcast)
        .join(Broadcast, Broadcast.id == LogEvent.broadcast_id)
        .where(LogEvent.seq > endpoint.planned_seq, LogEvent.seq <= through, LogEvent.type.in_(LOGGED_TYPES))
        .order_by(LogEvent.seq)
    )
    rows = []
    for epoch, seq, logged_type, payload, at, broadcast in session.execute(query):
        type_ = get_type(EventType(logged_type), payload)
        if type_ in endpoint.event_types:
            body = encode_body(type_, at, _describe(type_, payload, broadcast))
            rows.append(_build_row(endpoint_id, broadcast.id, type_, f"evt_{epoch}_{seq}", body, now))
    _insert(session, rows)
    endpoint.planned_seq = through
    return through < head_seq


def _describe(type_: WebhookType, payload: dict[str, Any], broadcast: Broadcast) -> dict[str, Any]:
    """The data of an event of the log: the message as it was then, or what ended it."""
    if type_ in (WebhookType.PUBLISHED, WebhookType.UPDATED):
        return payload
    return {
        "id": broadcast.id,
        "title": broadcast.title,
        "revision": broadcast.revision,
        "endedAt": clock.to_rfc3339(broadcast.ended_at),
        "reason": broadcast.cancel_reason,
    }


def has_unlogged(*, now: datetime) -> bool:
    """Whether something that is in no log has waited for long enough."""
    is_ready = WebhookEvent.at <= now - timedelta(seconds=BATCH_SECONDS)
    return db.session.scalar(select(exists().where(is_ready)))


def plan_unlogged(session: Session, *, now: datetime) -> bool:
    """Make the deliveries of what is in no log, at most UNLOGGED_PER_BATCH of it, for all endpoints. True: call again."""
    query = select(WebhookEvent).order_by(WebhookEvent.id).limit(UNLOGGED_PER_BATCH)
    events = session.scalars(query.with_for_update(skip_locked=True)).all()
    titles = _find_by_id(session, Broadcast.id, Broadcast.title, {event.broadcast_id for event in events})
    user_ids = {event.data["userId"] for event in events if "userId" in event.data}
    usernames = _find_by_id(session, User.id, User.username, user_ids)
    acknowledged = defaultdict(list)
    for event in events:
        if event.type == WebhookType.ACKNOWLEDGED:
            person = {"username": usernames.get(event.data["userId"])}
            acknowledged[event.broadcast_id].append(event.data | person | {"at": clock.to_rfc3339(event.at)})
        else:
            data = {"id": event.broadcast_id, "title": titles[event.broadcast_id]} | event.data
            _add_for_subscribers(session, WebhookType(event.type), event.broadcast_id, data, event.at, now)
    for broadcast_id, items in acknowledged.items():
        data = {"id": broadcast_id, "title": titles[broadcast_id], "acknowledgements": items}
        _add_for_subscribers(session, WebhookType.ACKNOWLEDGED, broadcast_id, data, now, now)
    session.execute(delete(WebhookEvent.__table__).where(WebhookEvent.id.in_([event.id for event in events])))
    return len(events) == UNLOGGED_PER_BATCH


def _find_by_id(session: Session, key: Any, value: Any, ids: Collection[int]) -> dict[int, str]:
    return dict(map(tuple, session.execute(select(key, value).where(key.in_(ids)))))


def _add_for_subscribers(
    session: Session, type_: WebhookType, broadcast_id: int, data: dict[str, Any], at: datetime, now: datetime
) -> None:
    message_id, body = f"evt_{secrets.token_hex(12)}", encode_body(type_, at, data)
    ids = list_subscribers(session, type_)
    _insert(session, [_build_row(endpoint_id, broadcast_id, type_, message_id, body, now) for endpoint_id in ids])


def _build_row(
    endpoint_id: int, broadcast_id: int, type_: WebhookType, message_id: str, body: str, now: datetime
) -> dict[str, Any]:
    return {
        "endpoint_id": endpoint_id,
        "broadcast_id": broadcast_id,
        "type": type_.value,
        "message_id": message_id,
        "body": body,
        "state": "WAITING",
        "due_at": now,
        "attempts": 0,
        "created_at": now,
    }


def _insert(session: Session, rows: list[dict[str, Any]]) -> None:
    if rows:
        session.execute(build_insert(session, WebhookDelivery.__table__).on_conflict_do_nothing(), rows)


def get_head_seq(session: Session) -> int:
    """Where an endpoint begins: it gets what happens from now on."""
    return session.scalar(select(LogHead.seq))
