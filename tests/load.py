"""Programs that publish through a proxy while nodes come and go, and what is true afterwards."""

import http.client
import secrets
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from tests import figures
from tests.streams import Stream
from tests.system import System, wait_for

_PUBLISHERS = 4


@dataclass
class Publisher:
    """A program that publishes with an idempotency key and asks again when it is refused or cut off."""

    system: System
    token: str
    refusals: list[float] = field(default_factory=list)  # seconds from a first refusal to the answer that counts

    def publish(self, title: str) -> int:
        """Publish to everyone; return the id. Fails after 20 s."""
        refused_at, deadline = None, time.monotonic() + 20
        while True:
            began = time.monotonic()
            try:
                status, answer = self._ask(title)
            except (OSError, http.client.HTTPException):
                status, answer = 0, None
            if status in (200, 201):
                if refused_at:
                    self.refusals.append(time.monotonic() - refused_at)
                return answer["id"]
            assert status in (0, 429, 502, 503, 504), f"{status}: {answer}"
            assert began < deadline, f"refused for 20 s, at last with {status}"
            refused_at = refused_at or began
            time.sleep(0.05)  # between two tries, as a client would

    def _ask(self, title: str) -> tuple[int, dict]:
        body = {"title": title, "content": f"Text of {title}", "targetType": "ALL"}
        return self.system.call(
            "POST", "/api/admin/broadcasts", token=self.token, body=body, headers={"Idempotency-Key": title}
        )


class Load:
    """Publishers that go on until the block ends. `sent` holds the ids."""

    def __init__(self, system: System):
        token = system.token("alice", "admin")
        self.publishers = [Publisher(system, token) for _ in range(_PUBLISHERS)]
        self.sent: list[int] = []
        self._over = threading.Event()
        self._parts: list[Future] = []

    @property
    def count(self) -> int:
        return len(self.sent)

    @property
    def refusals(self) -> list[float]:
        return [seconds for publisher in self.publishers for seconds in publisher.refusals]

    def __enter__(self) -> "Load":
        self._pool = ThreadPoolExecutor(_PUBLISHERS)
        self._parts = [self._pool.submit(self._go_on, publisher) for publisher in self.publishers]
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._pool.shutdown()
        for part in self._parts:
            part.result()

    def wait_until_sent(self, count: int) -> None:
        def enough() -> bool:
            for part in self._parts:
                assert not part.done(), part.exception()
            return self.count >= count

        wait_for(enough, seconds=60, what=f"{count} messages sent")

    def _go_on(self, publisher: Publisher) -> None:
        while not self._over.is_set():
            self.sent.append(publisher.publish(f"Under load {secrets.token_hex(6)}"))


def log_of(node: System) -> list[int]:
    """Ids of all broadcasts in the order of the log."""
    token, listed, after = node.token("alice", "admin"), [], ""
    while after is not None:
        page = node.call("GET", f"/api/admin/broadcasts?limit=200{after}", token=token)[1]
        listed += [(item["seq"], item["id"]) for item in page["items"]]
        after = page["next"] and f"&after={page['next']}"
    return [broadcast_id for _, broadcast_id in sorted(listed)]


def expect_all(readers: list[Stream], log: list[int], sent: list[int]) -> None:
    log = [broadcast_id for broadcast_id in log if broadcast_id >= min(sent)]
    assert sorted(log) == sorted(sent)
    for n, reader in enumerate(readers):
        wait_for(lambda: len(reader.of("MESSAGE")) >= len(log), seconds=30, what=f"all messages on stream {n}")  # noqa: B023
        assert reader.message_ids == log, f"stream {n} has not what the log has"


def note(what: str, load: Load, readers: list[Stream]) -> None:
    silences = [max(reader.away_seconds, default=0.0) for reader in readers]
    figures.noted.append(
        f"{what}: {load.count} published, {len(load.refusals)} refused for at most {max(load.refusals, default=0):.2f} s; "
        f"streams away for at most {max(silences):.2f} s"
    )
