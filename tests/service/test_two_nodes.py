"""Two nodes, one system: a node may die or be replaced while people publish and listen, and nothing is lost.

Publishers and streams know one address only, nginx's. Who is refused there asks again, as a program should.
"""

import http.client
import json
import secrets
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import redis

from tests import figures
from tests.nodes import Nodes, two_nodes  # noqa: F401 - a fixture
from tests.processes import Streams
from tests.streams import Stream
from tests.system import System, wait_for

pytestmark = [pytest.mark.service, pytest.mark.alike, pytest.mark.timeout(300)]

_PUBLISHERS, _STREAMS = 4, 20


def test_what_is_published_at_one_node_is_on_the_streams_of_both(two_nodes: Nodes, streams: Streams):  # noqa: F811
    at_each = [streams.open(node.seen_at(node.url), "bob") for node in two_nodes.both]
    publisher = Publisher(two_nodes.second, two_nodes.front.token("alice", "admin"))
    sent = publisher.publish(f"From the second node {secrets.token_hex(4)}")
    for node, stream in zip(two_nodes.both, at_each, strict=True):
        assert stream.wait_for_message(sent).worker in node.workers()


def test_streams_through_the_proxy_are_spread_and_not_held_back(two_nodes: Nodes, streams: Streams):  # noqa: F811
    readers = streams.open_many(two_nodes.front, "bob", 12)
    assert {_node_of(reader, two_nodes) for reader in readers} == {0, 1}
    publisher = Publisher(two_nodes.front, two_nodes.front.token("alice", "admin"))
    began = time.monotonic()
    sent = publisher.publish("Through nginx")
    figures.note(
        "publish → frame on a stream, through nginx with TLS, two nodes",
        [reader.wait_for_message(sent).at - began for reader in readers],
    )


def test_client_cannot_choose_its_own_address(two_nodes: Nodes, streams: Streams):  # noqa: F811
    """Limits count by address; whoever could name one in X-Forwarded-For would have as many as they like."""
    headers = {"Authorization": f"Bearer {two_nodes.front.token('bob')}", "X-Forwarded-For": "203.0.113.9"}
    label = secrets.token_hex(8)
    streams.opened.append(Stream(two_nodes.front.url, headers=headers, path=f"/api/sse/connect?connectionId={label}"))
    told = wait_for(lambda: _presence_of(label, two_nodes), what="the stream in the register")
    assert told["address"] == "127.0.0.1"


def test_http_typed_for_the_port_with_tls_leads_to_https(two_nodes: Nodes):  # noqa: F811
    connection = http.client.HTTPConnection("localhost", two_nodes.front.port, timeout=10)
    connection.request("GET", "/login?next=/account")
    answer = connection.getresponse()
    connection.close()
    assert (answer.status, answer.headers["Location"]) == (308, f"{two_nodes.front.url}/login?next=/account")


def test_node_killed_while_people_publish_costs_nobody_a_message(two_nodes: Nodes, streams: Streams):  # noqa: F811
    readers = _readers(two_nodes, streams)
    victims = [reader for reader in readers if _node_of(reader, two_nodes) == 0]
    assert victims, "no stream was served by the node to be killed"
    load = Load(two_nodes.front)
    with load:
        load.wait_until_sent(50)
        two_nodes.first.kill()
        load.wait_until_sent(load.count + 150)
        two_nodes.first.start()
    _expect_all(readers, _log(two_nodes.second), load.sent)
    assert all(len(reader.heads) > 1 for reader in victims)
    _note("a node killed", load, readers)


def test_rolling_restart_under_load_loses_nothing_and_refuses_nobody_for_long(
    two_nodes: Nodes,  # noqa: F811
    streams: Streams,
):
    readers = _readers(two_nodes, streams)
    load = Load(two_nodes.front)
    with load:
        for node in two_nodes.both:
            load.wait_until_sent(load.count + 50)
            node.stop()
            node.start()
        load.wait_until_sent(load.count + 50)
    _expect_all(readers, _log(two_nodes.first), load.sent)
    assert all(reader.of("SERVER_SHUTDOWN") for reader in readers)
    _note("a rolling restart", load, readers)


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


def _readers(nodes: Nodes, streams: Streams) -> list[Stream]:
    return [
        *streams.open_many(nodes.front, "bob", _STREAMS // 2),
        *streams.open_many(nodes.front, "charlie", _STREAMS // 2),
    ]


def _node_of(stream: Stream, nodes: Nodes) -> int:
    [index] = [n for n, node in enumerate(nodes.both) if stream.worker in node.workers()]
    return index


def _presence_of(label: str, nodes: Nodes) -> dict | None:
    """What the workers wrote into Redis about the stream with that label."""
    with redis.Redis.from_url(nodes.first.environ["REDIS_URL"]) as client:
        for key in client.scan_iter("broadcast:presence:*"):
            told = [stream for streams in client.hvals(key) for stream in json.loads(streams)]
            if found := [stream for stream in told if stream["label"] == label]:
                return found[0]
    return None


def _log(node: System) -> list[int]:
    """Ids of all broadcasts in the order of the log."""
    token, listed, after = node.token("alice", "admin"), [], ""
    while after is not None:
        page = node.call("GET", f"/api/admin/broadcasts?limit=200{after}", token=token)[1]
        listed += [(item["seq"], item["id"]) for item in page["items"]]
        after = page["next"] and f"&after={page['next']}"
    return [broadcast_id for _, broadcast_id in sorted(listed)]


def _expect_all(readers: list[Stream], log: list[int], sent: list[int]) -> None:
    log = [broadcast_id for broadcast_id in log if broadcast_id >= min(sent)]
    assert sorted(log) == sorted(sent)
    for n, reader in enumerate(readers):
        wait_for(lambda: len(reader.of("MESSAGE")) >= len(log), seconds=30, what=f"all messages on stream {n}")  # noqa: B023
        assert reader.message_ids == log, f"stream {n} has not what the log has"


def _note(what: str, load: Load, readers: list[Stream]) -> None:
    silences = [max(reader.away_seconds, default=0.0) for reader in readers]
    figures.noted.append(
        f"{what}: {load.count} published, {len(load.refusals)} refused for at most {max(load.refusals, default=0):.2f} s; "
        f"streams away for at most {max(silences):.2f} s"
    )
