"""Common steps of tests: build and publish a message, count rows."""

from datetime import datetime
from typing import Any

import sqlalchemy

from broadcast.actions import broadcasts
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.message import parse_draft
from broadcast.store import users
from broadcast.store.database import db
from broadcast.store.models import Broadcast, LogEvent, LogHead
from broadcast.store.transactions import write_transaction


def build_message(**changes: Any) -> dict[str, Any]:
    """Return a valid message to everyone as the API takes it; `changes` replace fields, None removes one."""
    fields = {"title": "Lifts", "content": "The lifts stand still.", "targetType": "ALL"} | changes
    return {name: value for name, value in fields.items() if value is not None}


def build_role_message(*names: str, **changes: Any) -> dict[str, Any]:
    return build_message(targetType="ROLE", targetIds=list(names), **changes)


def build_user_message(*names: str, **changes: Any) -> dict[str, Any]:
    return build_message(targetType="SELECTED", targetIds=list(names), **changes)


def publish_message(
    by: Actor, raw: dict[str, Any] | None = None, *, now: datetime | None = None, key: str | None = None
) -> int:
    """Publish `raw`, or a message to everyone; return its id. Needs an application context."""
    now = now or clock.now()
    return broadcasts.publish(parse_draft(raw or build_message(), now=now), by=by, now=now, idempotency_key=key).id


def expire_broadcast(broadcast_id: int, *, now: datetime) -> None:
    """Expire a live broadcast as the scheduler does. Needs an application context."""
    with write_transaction() as session:
        session.get(Broadcast, broadcast_id).expires_at = now
    assert broadcasts.expire_due([broadcast_id], now=now) == [broadcast_id]


def lose_commits(count: int) -> None:
    """Take back the last `count` events and their broadcasts, as after a failover to a standby that was behind."""
    with write_transaction() as session:
        newest_seq = session.scalar(sqlalchemy.select(LogHead.seq)) - count
        session.execute(sqlalchemy.delete(Broadcast).where(Broadcast.seq > newest_seq))
        session.execute(sqlalchemy.delete(LogEvent).where(LogEvent.seq > newest_seq))
        session.execute(sqlalchemy.update(LogHead).values(seq=newest_seq))


def load_actor(username: str) -> Actor:
    """Return a test user as an actor with its current permissions. Needs an application context."""
    user = users.get_by_username(username)
    return Actor(user.id, user.name, user.roles, user.is_admin)


def count_rows() -> dict[str, int]:
    """Return the number of rows of every table, and the head of the log. Needs an application context."""
    db.session.rollback()
    count = sqlalchemy.select(sqlalchemy.func.count())
    counts = [count.select_from(table).scalar_subquery().label(name) for name, table in db.metadata.tables.items()]
    head = sqlalchemy.text('(SELECT seq FROM log_head) AS "log_head.seq"')
    row_counts = dict(db.session.execute(sqlalchemy.select(*counts, head)).mappings().one())
    db.session.rollback()
    return row_counts
