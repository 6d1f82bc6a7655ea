"""What tests do again and again: write a message, send it, count rows, read a stream of the test client."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy
from flask.testing import FlaskClient

from broadcast.actions import broadcasts
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.message import read_draft
from broadcast.store import users
from broadcast.store.database import db, writing
from broadcast.store.models import Broadcast


def a_message(**changes: Any) -> dict[str, Any]:
    """A valid message to everyone as the API takes it; `changes` replace fields, None takes one away."""
    whole = {"title": "Lifts", "content": "The lifts stand still.", "targetType": "ALL"} | changes
    return {name: value for name, value in whole.items() if value is not None}


def to_role(*names: str, **changes: Any) -> dict[str, Any]:
    return a_message(targetType="ROLE", targetIds=list(names), **changes)


def to_people(*names: str, **changes: Any) -> dict[str, Any]:
    return a_message(targetType="SELECTED", targetIds=list(names), **changes)


def send(by: Actor, raw: dict[str, Any] | None = None, *, now: datetime | None = None, key: str | None = None) -> int:
    """Publish `raw`, or a message to everyone, and return its id. Inside an application context."""
    now = now or clock.now()
    return broadcasts.publish(read_draft(raw or a_message(), now=now), by=by, now=now, key=key).id


def expire(broadcast_id: int, *, now: datetime) -> None:
    """Let the time of a live broadcast be over, as the clock finds it. Inside an application context."""
    with writing() as session:
        session.get(Broadcast, broadcast_id).expires_at = now
    assert broadcasts.expire_due([broadcast_id], now=now) == [broadcast_id]


def actor(username: str) -> Actor:
    """Who a person of the cast is now. Inside an application context."""
    user = users.by_username(username)
    return Actor(user.id, user.name, user.roles, user.is_admin)


def count_rows() -> dict[str, int]:
    """The number of rows of every table, and the newest number of the log. Inside an application context."""
    db.session.rollback()
    tables = db.metadata.tables.values()
    count = sqlalchemy.func.count
    counted = {t.name: db.session.scalar(sqlalchemy.select(count()).select_from(t)) for t in tables}
    counted["log_head.seq"] = db.session.scalar(sqlalchemy.text("SELECT seq FROM log_head"))
    db.session.rollback()
    return counted


@dataclass(frozen=True, slots=True)
class Frame:
    event: str
    data: Any
    id: str | None


class Reader:
    """A stream of the test client, frame by frame. Asking for a frame that never comes fails: nothing else runs."""

    def __init__(self, http: FlaskClient, path: str = "/api/sse/connect", **options: Any):
        self.response = http.get(path, buffered=False, **options)
        assert self.response.mimetype == "text/event-stream", self.response.status
        self._frames = self._read()

    def next(self) -> Frame | None:
        """The next frame, None at the end of the stream."""
        return next(self._frames, None)

    def until(self, event: str) -> list[Frame]:
        """Every frame up to and including the first `event`."""
        found: list[Frame] = []
        while not found or found[-1].event != event:
            frame = self.next()
            assert frame is not None, f"the stream ended after {found} without {event}"
            found.append(frame)
        return found

    def close(self) -> None:
        self.response.close()

    def _read(self) -> Iterator[Frame]:
        for chunk in self.response.response:
            for block in chunk.split(b"\n\n"):
                fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if ": " in line)
                if "event" in fields:
                    data = "\n".join(ln[6:] for ln in block.decode().split("\n") if ln.startswith("data: "))
                    is_json = self.response.request.path.startswith("/api/") or data.startswith("{")
                    yield Frame(fields["event"], json.loads(data) if is_json else data, fields.get("id"))
