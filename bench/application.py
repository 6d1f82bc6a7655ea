"""The real application for benchmarks: real launcher, real Redis, users with tokens, a worker pinned to a core.

Run in the project's environment. Users and messages are written by the application's own actions, in this process.
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import insert

from broadcast.actions import broadcasts, notify
from broadcast.actions import tokens as token_actions
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.audience import EveryoneAudience, make_role_audience
from broadcast.domain.events import EventType
from broadcast.domain.message import parse_draft
from broadcast.factory import create_app
from broadcast.store import log
from broadcast.store.models import ApiToken, Role, User, UserRole
from broadcast.store.transactions import write_transaction
from tests.support.system import System

OPS_USERS = 100  # users with the role ops; all others have none


class Application:
    """A running system with users. `path` is the stream of an API client."""

    path = "/api/sse/connect"

    def __init__(self, system: System, folder: Path, count: int):
        self.system, self.port = system, system.port
        self.tokens = folder / "tokens"
        environ = system.environ | {"REDIS_URL": system.redis_url}
        self.app = create_app(Settings.load(environ))
        with self.app.app_context():
            self.tokens.write_text("\n".join(_insert_users(count)) + "\n")
            self._broadcast_id = _publish_broadcast()

    def send(self, count: int, *, to_ops: bool = False) -> list[float]:
        """Append `count` messages of about 200 bytes each in one transaction; return the time of the commit."""
        audience = make_role_audience(["ops"]) if to_ops else EveryoneAudience()
        with self.app.app_context():
            payload = {"id": self._broadcast_id, "title": "x" * 110}
            entry = log.NewEvent(EventType.MESSAGE, self._broadcast_id, audience, payload)
            with write_transaction() as session:
                log.append(session, [entry] * count, at=clock.now())
            committed = time.time()
            notify.notify_workers()
        return [committed] * count

    def cursor(self, events_back: int = 0) -> str:
        with self.app.app_context():
            head = log.get_head()
        return f"{head.epoch}-{max(0, head.seq - events_back)}"


def _insert_users(count: int) -> list[str]:
    now, tokens = clock.now(), [secrets.token_urlsafe(24) for _ in range(count)]
    with write_transaction() as session:
        if session.get(Role, "ops") is None:
            session.add(Role(name="ops"))
            session.flush()
        ids = session.scalars(
            insert(User).returning(User.id),
            [{"username": f"p{secrets.token_hex(8)}", "name": f"Person {n}", "created_at": now} for n in range(count)],
        ).all()
        session.execute(insert(UserRole), [{"user_id": user_id, "role_name": "ops"} for user_id in ids[:OPS_USERS]])
        rows = [
            {
                "token_hash": token_actions.hash_token(token),
                "user_id": user_id,
                "label": "bench",
                "scopes": "inbox",
                "created_at": now,
            }
            for token, user_id in zip(tokens, ids, strict=True)
        ]
        session.execute(insert(ApiToken), rows)
    return tokens


def _publish_broadcast() -> int:
    """Publish the broadcast that all messages belong to, so that receipts can be recorded; return its id."""
    actor, fields = Actor(1, "Bench", frozenset(), True), {"title": "Measured", "content": "Text", "targetType": "ROLE"}
    draft = parse_draft(fields | {"targetIds": ["ops"]}, now=clock.now())
    return broadcasts.publish(draft, by=actor, now=clock.now()).id


@contextmanager
def run_application(folder: Path, *, people_count: int, workers: int = 1, **settings: str) -> Iterator[Application]:
    """Start it without rate limits; with one worker, that worker has core 0 for itself."""
    environ = {"WEB_CONCURRENCY": str(workers), "STREAMS_PER_ADDRESS": "100000", "STREAMS_PER_WORKER": "20000"}
    system = System(folder, **environ | settings)
    system.start()
    try:
        if workers == 1:
            os.sched_setaffinity(system.get_worker_pids()[0], {0})
        yield Application(system, folder, people_count)
    finally:
        system.stop()
