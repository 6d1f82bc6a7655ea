"""The real application for benchmarks: real launcher, real Redis, users with tokens and sessions, a worker on core 0.

Users and messages are written by the application's own actions, in this process.
"""

import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flask.sessions import SecureCookieSessionInterface
from sqlalchemy import func, insert, select

from bench.client import Browser, Target, build_get
from broadcast.actions import broadcasts, notify
from broadcast.actions import tokens as token_actions
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.audience import EveryoneAudience
from broadcast.domain.events import EventType
from broadcast.domain.message import parse_draft
from broadcast.factory import create_app
from broadcast.store import log
from broadcast.store.database import db
from broadcast.store.models import ApiToken, Receipt, Role, User, UserRole, UserSession
from broadcast.store.transactions import write_transaction
from tests.support.system import System


class Application:
    """A running system with `count` users, each with a token and a browser's session. Also a peer of `bench.peers`."""

    name = "this application"

    def __init__(self, system: System, folder: Path, count: int):
        self.system = system
        self.tokens, self.cookies = folder / "tokens", folder / "cookies"
        self.app = create_app(Settings.load(system.environ | {"REDIS_URL": system.redis_url}))
        with self.app.app_context():
            tokens, cookies = _insert_users(self.app, count)
            self.tokens.write_text("\n".join(tokens))
            self.cookies.write_text("\n".join(cookies))
        [self._broadcast_id] = self.publish(1, targetType="ROLE", targetIds=["ops"])

    @property
    def pids(self) -> list[int]:
        return self.system.get_worker_pids()

    def publish(self, count: int, **audience: Any) -> list[int]:
        """Publish that many broadcasts, to everybody unless `audience` says otherwise; return their ids."""
        with self.app.app_context():
            return [_publish({"title": f"Message {n}", "category": f"C{n % 3}"} | audience) for n in range(count)]

    def send(self, count: int, broadcast_id: int | None = None) -> list[float]:
        """Send messages of about 200 bytes to everybody, each in its transaction; return the times of the commits."""
        payload = {"id": broadcast_id or self._broadcast_id, "title": "x" * 110}
        entry, committed_at = log.NewEvent(EventType.MESSAGE, payload["id"], EveryoneAudience(), payload), []
        with self.app.app_context():
            for _ in range(count):
                with write_transaction() as session:
                    log.append(session, [entry], at=clock.now())
                committed_at.append(time.time())
                notify.notify_workers()
        return committed_at

    def get_cursor(self, events_back: int = 0) -> str:
        with self.app.app_context():
            head = log.get_head()
        return f"{head.epoch}-{max(0, head.seq - events_back)}"

    def open_browsers(self) -> list[Browser]:
        """The browser of everybody."""
        return [Browser(self.system.port, cookie) for cookie in self.cookies.read_text().split()]

    def open_browser(self) -> Browser:
        """The browser of somebody."""
        return Browser(self.system.port, self.cookies.read_text().split()[0])

    def stream(self, path: str = "/api/sse/connect") -> Target:
        """A program's stream: everybody's token."""
        return Target(self.system.port, self.tokens, build_get(path, "Authorization: Bearer {}"))

    def live_stream(self) -> Target:
        return self.stream(f"/api/sse/connect?after={self.get_cursor()}")

    def replay_stream(self, events: int) -> Target:
        return self.stream(f"/api/sse/connect?after={self.get_cursor(events)}")

    def count_receipts(self, broadcast_ids: Iterable[int] | None = None) -> int:
        query = select(func.count()).select_from(Receipt)
        if broadcast_ids is not None:
            query = query.where(Receipt.broadcast_id.in_(broadcast_ids))
        with self.app.app_context():
            return db.session.scalar(query)

    def wait_until_idle(self) -> None:
        """Wait until the worker writes no more receipts."""
        before = -1
        while before != (before := self.count_receipts()):
            time.sleep(2)


def _insert_users(app: Any, count: int) -> tuple[list[str], list[str]]:
    """Insert users; return a token and a cookie of each."""
    now, tokens = clock.now(), [secrets.token_urlsafe(24) for _ in range(count)]
    hashes = [token_actions.hash_token(token) for token in tokens]
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    with write_transaction() as session:
        session.add(Role(name="ops"))
        session.flush()
        users = [
            {"username": f"p{secrets.token_hex(8)}", "name": f"Person {n}", "created_at": now} for n in range(count)
        ]
        ids = session.scalars(insert(User).returning(User.id), users).all()
        session.add(UserRole(user_id=ids[0], role_name="ops"))  # who gets what the measured events name
        of_user = [{"token_hash": hash, "user_id": id, "created_at": now} for hash, id in zip(hashes, ids, strict=True)]
        session.execute(insert(ApiToken), [row | {"label": "bench", "scopes": "inbox"} for row in of_user])
        session.execute(insert(UserSession), [row | {"seen_at": now} for row in of_user])
    return tokens, [
        f"{app.config['SESSION_COOKIE_NAME']}="
        + serializer.dumps({"token": token, "csrf_token": f"{id}-{secrets.token_hex(20)}"})
        for token, id in zip(tokens, ids, strict=True)
    ]


def _publish(fields: dict[str, Any]) -> int:
    text = {"content": "The lifts **stand** still.\n\n* one\n* two", "targetType": "ALL"}
    actor = Actor(1, "Bench", frozenset(), True)
    return broadcasts.publish(parse_draft(text | fields, now=clock.now()), by=actor, now=clock.now()).id


@contextmanager
def run_application(
    folder: Path, *, people_count: int, workers: int = 1, database_url: str | None = None, **settings: str
) -> Iterator[Application]:
    """Start it without rate limits; one worker has core 0, and this process core 1."""
    folder.mkdir()
    environ = {"WEB_CONCURRENCY": str(workers), "STREAMS_PER_ADDRESS": "100000", "STREAMS_PER_WORKER": "20000"}
    system = System(folder, database_url=database_url, **environ | settings)
    system.start()
    try:
        if workers == 1:
            os.sched_setaffinity(system.get_worker_pids()[0], {0})
            os.sched_setaffinity(0, {1})
        yield Application(system, folder, people_count)
    finally:
        os.sched_setaffinity(0, {0, 1})
        system.stop()
