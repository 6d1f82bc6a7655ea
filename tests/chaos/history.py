"""What happened in a run, one JSON line per event. The checker reads nothing else.

    person   user, roles                                 a user exists, with these roles
    roles    user, roles, began, at                      a change of roles, requested at `began` and answered at `at`
    publish  key, audience, began, at, result, id        one attempt: `ok`, `fail` (refused: it must not exist) or `info`
    end      id, why, began, at, result                  a recall, or the expiry that was set at publishing
    connect  stream, user, cursor, honest, at            a stream opened with that cursor; not `honest`: RESET follows
    frame    stream, user, turn, event, id, broadcast, key, at        a received frame, in order; `turn` counts connects
    reload   stream, user, began, at, cards, cursor      the client loaded its list: at the start, and on RESET
    inbox    user, began, at, cards, read, final         a list: broadcast ids, newest first, and which of them are read
    receipt  user, id, at                                marking a message read was answered
    log      rows                                        at the end: [seq, id, key] of everything that exists
    fault    name, phase, at                             `phase` is begin or heal
    current  stream, at                                  after the heal: this stream has everything of its audience

`at` and `began` are seconds of one monotonic clock. `audience` is as in the log, with usernames instead of ids.
"""

import json
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

HistoryEvent = dict[str, Any]


class History:
    """Events in the order of recording, from any thread. With `path` each is also written to that file as a line."""

    def __init__(self, path: Path | None = None):
        self.events: list[HistoryEvent] = []
        self._lock = threading.Lock()
        self._file = path.open("w") if path else None

    def record_event(self, kind: str, **fields: Any) -> HistoryEvent:
        event = {"kind": kind, "at": time.monotonic()} | fields
        with self._lock:
            self.events.append(event)
            if self._file:
                self._file.write(json.dumps(event) + "\n")
        return event

    def close(self) -> None:
        if self._file:
            self._file.close()


def read_history(path: Path) -> list[HistoryEvent]:
    """Read a file that a History wrote."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def select_events(events: Iterable[HistoryEvent], *kinds: str) -> list[HistoryEvent]:
    return [event for event in events if event["kind"] in kinds]


def is_in_audience(audience: HistoryEvent, user: str, roles: Sequence[str]) -> bool:
    """Whether a user with these roles is in the audience; implemented again here, to find bugs in the product."""
    match audience["kind"]:
        case "everyone":
            return True
        case "roles":
            return bool(set(audience["roles"]) & set(roles))
        case "users":
            return user in audience["users"]
    raise ValueError(audience)
