"""A stream as an API client reads it: frames with id, event and data; reconnects with its cursor when disconnected.

It neither deduplicates nor sorts: `frames` is what the server sent.
"""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.support.system import open_connection, wait_for

_READ_TIMEOUT_SECONDS = 60  # longer than any heartbeat: a stream that is silent for this long is reopened
_MAX_PAUSE_SECONDS = 0.3  # `retry` may be 10 s to spread thousands of reconnects; tests have few streams
_FINAL_EVENTS = {"SIGNED_OUT", "CONNECTION_LIMIT_REACHED"}


@dataclass(frozen=True, slots=True)
class Frame:
    """One SSE frame. `received_at` is `time.monotonic()` at its last byte, `worker` the process that sent it."""

    event: str
    data: str
    id: str | None
    retry_ms: int | None
    received_at: float
    worker: int

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class StreamClient:
    """Reads in its own thread until `close`. Attributes only grow, so they may be read at any time."""

    def __init__(self, url: str, *, headers: dict[str, str], path: str = "/api/sse/connect", after: str | None = None):
        self.url, self.path, self.headers = url, path, headers
        self.cursor = after
        self.frames: list[Frame] = []
        self.response_headers: list[http.client.HTTPMessage] = []  # one per connection
        self.reconnect_seconds: list[float] = []  # one per reconnect: from the disconnection to the next headers
        self._disconnected_at: float | None = None
        self._retry_seconds = 0.05
        self._closing = threading.Event()
        self._sock: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # ---- received

    @property
    def workers(self) -> list[int]:
        """The workers that served it, one per connection."""
        return [int(head["X-Worker"]) for head in self.response_headers]

    @property
    def worker(self) -> int | None:
        return self.workers[-1] if self.response_headers else None

    @property
    def message_ids(self) -> list[int]:
        return [frame.json["id"] for frame in self.frames_of("MESSAGE")]

    def frames_of(self, *events: str) -> list[Frame]:
        return [frame for frame in list(self.frames) if frame.event in events]

    def wait_for(
        self, event: str, predicate: Callable[[Frame], Any] = lambda frame: True, *, seconds: float = 10
    ) -> Frame:
        """Return the first frame of that event for which `predicate` holds."""
        return wait_for(
            lambda: next((frame for frame in self.frames_of(event) if predicate(frame)), None),
            seconds=seconds,
            description=f"{event} on a stream that got {[frame.event for frame in self.frames][-20:]}",
        )

    def wait_for_message(self, broadcast_id: int, *, seconds: float = 10) -> Frame:
        return self.wait_for("MESSAGE", lambda frame: frame.json["id"] == broadcast_id, seconds=seconds)

    # ---- control

    def disconnect(self) -> None:
        """Close the connection at any point; the stream reconnects automatically."""
        if sock := self._sock:
            _shut_down(sock)

    def close(self) -> None:
        self._closing.set()
        self.disconnect()
        self._thread.join(10)

    # ---- reading

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._read_connection()
            except (OSError, http.client.HTTPException):
                pass  # disconnected, refused, or broken within the headers: reconnect
            finally:
                self._sock = None
                self._disconnected_at = self._disconnected_at or time.monotonic()
            if self.frames and self.frames[-1].event in _FINAL_EVENTS:
                return
            self._closing.wait(self._retry_seconds)

    def _read_connection(self) -> None:
        path = f"{self.path}?after={quote(self.cursor)}" if self.cursor else self.path
        connection = open_connection(self.url, timeout=_READ_TIMEOUT_SECONDS)
        connection.connect()
        self._sock = sock = connection.sock
        try:
            connection.request("GET", path, headers=self.headers)
            response = connection.getresponse()
            if response.status != 200 or response.headers.get_content_type() != "text/event-stream":
                raise http.client.HTTPException(f"{response.status} for a stream")
            if self._disconnected_at:
                self.reconnect_seconds.append(time.monotonic() - self._disconnected_at)
                self._disconnected_at = None
            self.response_headers.append(response.headers)
            self._read_frames(response, int(response.headers["X-Worker"]))
        finally:
            _shut_down(sock)
            connection.close()

    def _read_frames(self, response: http.client.HTTPResponse, worker: int) -> None:
        buffer = b""
        while not self._closing.is_set():
            data = response.read1(65536)
            if not data:
                return  # the buffer holds an incomplete frame, which does not count
            *blocks, buffer = (buffer + data).split(b"\n\n")
            received_at = time.monotonic()
            for block in blocks:
                self._handle_block(block.decode(), received_at, worker)

    def _handle_block(self, block: str, received_at: float, worker: int) -> None:
        fields: dict[str, list[str]] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            fields.setdefault(name, []).append(value.removeprefix(" "))
        retry_ms = int(fields["retry"][0]) if "retry" in fields else None
        if retry_ms is not None:
            self._retry_seconds = min(retry_ms / 1000, _MAX_PAUSE_SECONDS)
        if "data" not in fields:
            return
        id = fields["id"][0] if "id" in fields else None
        self.cursor = id or self.cursor
        self.frames.append(Frame(fields["event"][0], "\n".join(fields["data"]), id, retry_ms, received_at, worker))


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):  # already closed, by the server or by its own thread
        sock.shutdown(socket.SHUT_RDWR)
