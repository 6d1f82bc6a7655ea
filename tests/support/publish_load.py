"""Clients that publish through a proxy while nodes stop and start, and checks of the result."""

import http.client
import secrets
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.support import measurements as figures
from tests.support.stream_client import StreamClient
from tests.support.system import System, wait_for

_PUBLISHER_COUNT = 4


@dataclass
class Publisher:
    """A client that publishes with an idempotency key and retries when it is refused or disconnected."""

    system: System
    token: str
    refusal_seconds: list[float] = field(default_factory=list)  # seconds from the first refusal to success

    def publish(self, title: str) -> int:
        """Publish to everyone; return the id. Fails after 20 s."""
        refused_at, deadline = None, time.monotonic() + 20
        while True:
            started_at = time.monotonic()
            try:
                status, body = self._post_broadcast(title)
            except (OSError, http.client.HTTPException):
                status, body = 0, None
            if status in (200, 201):
                if refused_at:
                    self.refusal_seconds.append(time.monotonic() - refused_at)
                return body["id"]
            assert status in (0, 429, 502, 503, 504), f"{status}: {body}"
            assert started_at < deadline, f"refused for 20 s, at last with {status}"
            refused_at = refused_at or started_at
            time.sleep(0.05)  # a pause between retries, as a client makes

    def _post_broadcast(self, title: str) -> tuple[int, dict]:
        body = {"title": title, "content": f"Text of {title}", "targetType": "ALL"}
        return self.system.call(
            "POST", "/api/admin/broadcasts", token=self.token, body=body, headers={"Idempotency-Key": title}
        )


class PublishLoad:
    """Publishers that run until the block ends. `sent_ids` has the ids of their broadcasts."""

    def __init__(self, system: System):
        token = system.get_token("alice", "admin")
        self.publishers = [Publisher(system, token) for _ in range(_PUBLISHER_COUNT)]
        self.sent_ids: list[int] = []
        self._stopped = threading.Event()
        self._futures: list[Future] = []

    @property
    def count(self) -> int:
        return len(self.sent_ids)

    @property
    def refusal_seconds(self) -> list[float]:
        return [seconds for publisher in self.publishers for seconds in publisher.refusal_seconds]

    def __enter__(self) -> "PublishLoad":
        self._pool = ThreadPoolExecutor(_PUBLISHER_COUNT)
        self._futures = [self._pool.submit(self._publish_until_stopped, publisher) for publisher in self.publishers]
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._pool.shutdown()
        for future in self._futures:
            future.result()

    def wait_until_sent(self, count: int) -> None:
        def is_sent() -> bool:
            for future in self._futures:
                assert not future.done(), future.exception()
            return self.count >= count

        wait_for(is_sent, seconds=60, description=f"{count} messages sent")

    def _publish_until_stopped(self, publisher: Publisher) -> None:
        while not self._stopped.is_set():
            self.sent_ids.append(publisher.publish(f"Under load {secrets.token_hex(6)}"))


def list_log_ids(node: System) -> list[int]:
    """Return the ids of all broadcasts in log order."""
    token, entries, page_query = node.get_token("alice", "admin"), [], ""
    while page_query is not None:
        page = node.call("GET", f"/api/admin/broadcasts?limit=200{page_query}", token=token)[1]
        entries += [(item["seq"], item["id"]) for item in page["items"]]
        page_query = page["next"] and f"&after={page['next']}"
    return [broadcast_id for _, broadcast_id in sorted(entries)]


def expect_all_delivered(streams: list[StreamClient], log_ids: list[int], sent_ids: list[int]) -> None:
    log_ids = [broadcast_id for broadcast_id in log_ids if broadcast_id >= min(sent_ids)]
    assert sorted(log_ids) == sorted(sent_ids)
    for number, stream in enumerate(streams):
        wait_for(
            lambda: len(stream.frames_of("MESSAGE")) >= len(log_ids),  # noqa: B023
            seconds=30,
            description=f"all messages on stream {number}",
        )
        assert stream.message_ids == log_ids, f"stream {number} has not what the log has"


def record_load(label: str, load: PublishLoad, streams: list[StreamClient]) -> None:
    max_reconnect_seconds = [max(stream.reconnect_seconds, default=0.0) for stream in streams]
    figures.measurements.append(
        f"{label}: {load.count} published, {len(load.refusal_seconds)} refused for at most "
        f"{max(load.refusal_seconds, default=0):.2f} s; "
        f"streams away for at most {max(max_reconnect_seconds):.2f} s"
    )
