"""Who takes part in a run: a page that follows its stream, and requests whose outcome is told as ok, fail or info."""

import http.client
import json
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.chaos.history import History
from tests.streams import Frame, Stream

_CARD = re.compile(r'id="card-(\d+)"')
_CHANGES = ("MESSAGE", "MESSAGE_REMOVED", "RESET", "CONNECTED")  # what a page shows, or that it can be trusted
_ASK_SECONDS = 8.0  # longer than any promise; an answer that takes this long is "info"


@dataclass(frozen=True, slots=True)
class Answered:
    """`status` is None when no answer came: what was asked may have happened, or not."""

    status: int | None
    body: Any
    headers: Any
    seconds: float

    @property
    def result(self) -> str:
        if self.status in (None, 504):  # the server does not know either
            return "info"
        return "ok" if self.status in (200, 201, 204) else "fail"


def ask(port: int, method: str, path: str, token: str, body: Any = None, **headers: str) -> Answered:
    """One request over a connection of its own. Never raises for what the other side does."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ASK_SECONDS)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers |= {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} if token else {}
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        data = response.read()
        data = json.loads(data or b"null") if "json" in response.headers.get("Content-Type", "") else None
        return Answered(response.status, data, response.headers, time.monotonic() - began)
    except (OSError, http.client.HTTPException, ValueError):
        return Answered(None, None, {}, time.monotonic() - began)
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Listed:
    """A whole inbox, newest first; `cards` above the baseline only."""

    cards: list[int]
    read: list[int]
    cursor: str
    began: float


def load_list(port: int, token: str, baseline: int, statuses: Counter[int | None]) -> Listed | None:
    """Every page of a person's list; None when any of them could not be had. Counts how it was answered."""
    began, items, cursor, after = time.monotonic(), [], None, ""
    while True:
        answered = ask(port, "GET", f"/api/user/messages?view=all&limit=200{after}", token)
        statuses[answered.status] += 1
        if answered.status != 200:
            return None
        cursor = cursor or answered.body["cursor"]
        found = [item for item in answered.body["items"] if item["id"] > baseline]
        items += found
        if answered.body["next"] is None or len(found) < len(answered.body["items"]):
            break
        after = f"&after={answered.body['next']}"
    return Listed([item["id"] for item in items], [item["id"] for item in items if item["read"]], cursor, began)


class Page(Stream):
    """Loads its list, follows its stream from there, and loads it anew on RESET; notes all of it.

    `cards` is what it shows, `since` the moment from which it has shown that over a stream that is open, by `time.monotonic`;
    None while it has none.
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
        statuses: Counter[int | None],
    ):
        self.name, self.user, self.history, self.baseline = name, user, history, baseline
        self.cards: set[int] = set()
        self.since: float | None = None
        self._port, self._token, self._turn, self._statuses = system.port, token, 0, statuses
        super().__init__(system.url, headers={"Authorization": f"Bearer {token}"}, path=path)

    def _run(self) -> None:
        self._reload()
        self.history.note("connect", stream=self.name, user=self.user, cursor=self.cursor, honest=True)
        super()._run()

    def _reload(self) -> None:
        while not self._closing.is_set():
            if listed := load_list(self._port, self._token, self.baseline, self._statuses):
                self.cards, self.cursor = set(listed.cards), listed.cursor
                told = {"began": listed.began, "cards": listed.cards, "cursor": listed.cursor}
                self.history.note("reload", stream=self.name, user=self.user, **told)
                return
            self._closing.wait(0.2)

    def _read_frames(self, response: http.client.HTTPResponse, worker: int) -> None:
        self._turn += 1
        if self._turn > 1:
            self.history.note("connect", stream=self.name, user=self.user, cursor=self.cursor, honest=True)
        try:
            super()._read_frames(response, worker)
        finally:
            self.since = None

    def _take(self, block: str, at: float, worker: int) -> None:
        known = len(self.frames)
        super()._take(block, at, worker)
        for frame in self.frames[known:]:
            id = card_of(frame)
            self.history.note(
                "frame", stream=self.name, user=self.user, turn=self._turn, event=frame.event, id=frame.id, broadcast=id
            )
            match frame.event:
                case "MESSAGE":
                    self.cards.add(id)
                case "MESSAGE_REMOVED":
                    self.cards.discard(id)
                case "RESET":
                    self._reload()
            if frame.event in _CHANGES:
                self.since = time.monotonic()


def card_of(frame: Frame) -> int | None:
    """The broadcast of a frame in either representation."""
    if not frame.event.startswith("MESSAGE"):
        return None
    if found := _CARD.search(frame.data):
        return int(found[1])
    with suppress(ValueError, KeyError):
        return frame.json["id"]
    return None
