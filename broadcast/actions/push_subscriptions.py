"""The browsers of a user that get push messages: registering one, at each visit again, and removing one."""

from datetime import datetime
from typing import Any

from sqlalchemy.exc import IntegrityError

from broadcast.base.errors import Conflict, NotFound
from broadcast.config.settings import SETTINGS
from broadcast.domain.actor import Actor
from broadcast.domain.push_subscription import PushEndpoint, parse_subscription
from broadcast.store import audit, push_subscriptions
from broadcast.store.models import PushSubscription
from broadcast.store.transactions import write_transaction

MAX_BROWSERS = 20  # per user
_MAX_AGENT_CHARACTERS = 200


def register(raw: Any, *, by: Actor, session_id: int, agent: str, now: datetime) -> None:
    """Store the subscription that a browser made, or that it is still there; it belongs to this session from now on.

    A browser that another user used before gets that user's messages no more. Raises Invalid, Conflict (too many, or
    the endpoint is that of another browser), TemporarilyUnavailable.
    """
    endpoint = parse_subscription(raw, more_services=SETTINGS.current.push_services)
    try:
        _store(endpoint, by=by, session_id=session_id, agent=agent, now=now)
    except IntegrityError:
        raise Conflict("This browser was registered a moment ago by another page. Try again.") from None


def _store(endpoint: PushEndpoint, *, by: Actor, session_id: int, agent: str, now: datetime) -> None:
    with write_transaction() as session:
        row = push_subscriptions.get_by_endpoint(session, endpoint.url)
        if row is not None and (row.p256dh, row.auth) != (endpoint.p256dh, endpoint.auth):
            raise Conflict("This subscription is not that of your browser. Turn push messages on again.")
        if push_subscriptions.count_other(session, by.user_id, endpoint.url) >= MAX_BROWSERS:
            raise Conflict(f"You get push messages in {MAX_BROWSERS} browsers. Remove one of them first.")
        is_new = row is None or row.user_id != by.user_id
        if row is None:
            row = PushSubscription(endpoint=endpoint.url, p256dh=endpoint.p256dh, auth=endpoint.auth)
            session.add(row)
        if is_new:
            row.created_at = now
            audit.record(session, by, "person.push_on", "person", by.user_id, now=now)
        row.user_id, row.session_id, row.last_seen_at = by.user_id, session_id, now
        row.agent = agent[:_MAX_AGENT_CHARACTERS]


def remove(subscription_id: int, *, by: Actor, now: datetime) -> None:
    """Send nothing more to this browser of the user. Raises NotFound, TemporarilyUnavailable."""
    with write_transaction() as session:
        row = session.get(PushSubscription, subscription_id)
        if row is None or row.user_id != by.user_id:
            raise NotFound("There is no such browser. It may have been removed meanwhile.")
        session.delete(row)
        audit.record(session, by, "person.push_off", "person", by.user_id, now=now)


def remove_endpoint(endpoint: Any, *, by: Actor, now: datetime) -> None:
    """Send nothing more to the user's browser with this endpoint; nothing if there is none. Raises
    TemporarilyUnavailable.
    """
    if not isinstance(endpoint, str) or not endpoint.isascii() or not endpoint.isprintable():
        return
    with write_transaction() as session:
        row = push_subscriptions.get_by_endpoint(session, endpoint)
        if row is not None and row.user_id == by.user_id:
            session.delete(row)
            audit.record(session, by, "person.push_off", "person", by.user_id, now=now)
