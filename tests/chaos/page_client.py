"""The clients of a run: a page that follows its stream, and requests with the outcome ok, fail or info."""

import http.client
import json
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.chaos.history import History
from tests.support.stream_client import Frame, StreamClient

_CARD_ID_PATTERN = re.compile(r'id="card-(\d+)"')
_DISPLAY_EVENTS = ("MESSAGE", "MESSAGE_REMOVED", "RESET", "CONNECTED")  # what a page shows, or that it is current
_REQUEST_TIMEOUT_SECONDS = 8.0  # longer than any promised limit; a slower response is "info"


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """`status` is None when no response came: the request may have succeeded or not."""

    status: int | None
    body: Any
    headers: Any
    seconds: float

    @property
    def result(self) -> str:
        if self.status in (None, 504):  # the server does not know the outcome either
            return "info"
        return "ok" if self.status in (200, 201, 204) else "fail"


def send_request(port: int, method: str, path: str, token: str, body: Any = None, **headers: str) -> RequestOutcome:
    """Send one request over a new connection. Never raises for what the server does."""
    started_at = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_REQUEST_TIMEOUT_SECONDS)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers |= {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} if token else {}
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        content = response.read()
        content = json.loads(content or b"null") if "json" in response.headers.get("Content-Type", "") else None
        return RequestOutcome(response.status, content, response.headers, time.monotonic() - started_at)
    except (OSError, http.client.HTTPException, ValueError):
        return RequestOutcome(None, None, {}, time.monotonic() - started_at)
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class InboxSnapshot:
    """A whole inbox, newest first; `card_ids` has only ids above the baseline."""

    card_ids: list[int]
    read_ids: list[int]
    cursor: str
    started_at: float


def load_inbox(port: int, token: str, baseline: int, status_counts: Counter[int | None]) -> InboxSnapshot | None:
    """Load every page of a user's list; None if any page failed. Counts the response statuses."""
    started_at, items, cursor, page_query = time.monotonic(), [], None, ""
    while True:
        outcome = send_request(port, "GET", f"/api/user/messages?view=all&limit=200{page_query}", token)
        status_counts[outcome.status] += 1
        if outcome.status != 200:
            return None
        cursor = cursor or outcome.body["cursor"]
        new_items = [item for item in outcome.body["items"] if item["id"] > baseline]
        items += new_items
        if outcome.body["next"] is None or len(new_items) < len(outcome.body["items"]):
            break
        page_query = f"&after={outcome.body['next']}"
    return InboxSnapshot(
        [item["id"] for item in items], [item["id"] for item in items if item["read"]], cursor, started_at
    )


class InboxPage(StreamClient):
    """Loads its list, follows its stream from there, and reloads the list on RESET; records all of it in the history.

    `card_ids` is what it shows; `current_since` is when it began to show that over an open stream (`time.monotonic`),
    None while no stream is open.
    """

    def __init__(
        self,
        system,
        history: History,
        *,
        name: str,
        user: str,
        token: str,
        baseline: int,
        path: str,
        status_counts: Counter[int | None],
    ):
        self.name, self.user, self.history, self.baseline = name, user, history, baseline
        self.card_ids: set[int] = set()
        self.current_since: float | None = None
        self._port, self._token, self._connection_number, self._status_counts = system.port, token, 0, status_counts
        super().__init__(system.url, headers={"Authorization": f"Bearer {token}"}, path=path)

    def _run(self) -> None:
        self._reload()
        self.history.record_event("connect", stream=self.name, user=self.user, cursor=self.cursor, honest=True)
        super()._run()

    def _reload(self) -> None:
        while not self._closing.is_set():
            if snapshot := load_inbox(self._port, self._token, self.baseline, self._status_counts):
                self.card_ids, self.cursor = set(snapshot.card_ids), snapshot.cursor
                fields = {"began": snapshot.started_at, "cards": snapshot.card_ids, "cursor": snapshot.cursor}
                self.history.record_event("reload", stream=self.name, user=self.user, **fields)
                return
            self._closing.wait(0.2)

    def _read_frames(self, response: http.client.HTTPResponse, worker: int) -> None:
        self._connection_number += 1
        if self._connection_number > 1:
            self.history.record_event("connect", stream=self.name, user=self.user, cursor=self.cursor, honest=True)
        try:
            super()._read_frames(response, worker)
        finally:
            self.current_since = None

    def _handle_block(self, block: str, received_at: float, worker: int) -> None:
        known_count = len(self.frames)
        super()._handle_block(block, received_at, worker)
        for frame in self.frames[known_count:]:
            id = parse_broadcast_id(frame)
            self.history.record_event(
                "frame",
                stream=self.name,
                user=self.user,
                turn=self._connection_number,
                event=frame.event,
                id=frame.id,
                broadcast=id,
            )
            match frame.event:
                case "MESSAGE":
                    self.card_ids.add(id)
                case "MESSAGE_REMOVED":
                    self.card_ids.discard(id)
                case "RESET":
                    self._reload()
            if frame.event in _DISPLAY_EVENTS:
                self.current_since = time.monotonic()


def parse_broadcast_id(frame: Frame) -> int | None:
    """Return the broadcast id of a frame in either representation."""
    if not frame.event.startswith("MESSAGE"):
        return None
    if match := _CARD_ID_PATTERN.search(frame.data):
        return int(match[1])
    with suppress(ValueError, KeyError):
        return frame.json["id"]
    return None
