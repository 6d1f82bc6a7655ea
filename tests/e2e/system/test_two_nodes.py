"""Two nodes, one system: a node may die or be replaced during publishing and streaming, and nothing is lost.

Publishers and streams know only nginx's address. A refused client retries, as it should.
"""

import http.client
import json
import secrets
import time

import pytest
import redis

from tests.support import measurements
from tests.support.nodes import Nodes, two_nodes  # noqa: F401 - a fixture
from tests.support.process_fixtures import StreamOpener
from tests.support.publish_load import Publisher, PublishLoad, expect_all_delivered, list_log_ids, record_load
from tests.support.stream_client import StreamClient
from tests.support.system import wait_for

pytestmark = [pytest.mark.service, pytest.mark.alike, pytest.mark.timeout(300)]

_STREAMS = 20


def test_what_is_published_at_one_node_is_on_the_streams_of_both(two_nodes: Nodes, streams: StreamOpener):  # noqa: F811
    at_each = [streams.open(node.with_url(node.url), "bob") for node in two_nodes.nodes]
    publisher = Publisher(two_nodes.second, two_nodes.via_proxy.get_token("alice", "admin"))
    sent = publisher.publish(f"From the second node {secrets.token_hex(4)}")
    for node, stream in zip(two_nodes.nodes, at_each, strict=True):
        assert stream.wait_for_message(sent).worker in node.get_worker_pids()


def test_streams_through_the_proxy_are_spread_and_not_held_back(two_nodes: Nodes, streams: StreamOpener):  # noqa: F811
    readers = streams.open_many(two_nodes.via_proxy, "bob", 12)
    assert {_node_of(reader, two_nodes) for reader in readers} == {0, 1}
    publisher = Publisher(two_nodes.via_proxy, two_nodes.via_proxy.get_token("alice", "admin"))
    began = time.monotonic()
    sent = publisher.publish("Through nginx")
    measurements.record_durations(
        "publish → frame on a stream, through nginx with TLS, two nodes",
        [reader.wait_for_message(sent).received_at - began for reader in readers],
    )


def test_client_cannot_choose_its_own_address(two_nodes: Nodes, streams: StreamOpener):  # noqa: F811
    """Limits count by address; whoever could name one in X-Forwarded-For would have as many as they like."""
    headers = {"Authorization": f"Bearer {two_nodes.via_proxy.get_token('bob')}", "X-Forwarded-For": "203.0.113.9"}
    label = secrets.token_hex(8)
    streams.opened.append(
        StreamClient(two_nodes.via_proxy.url, headers=headers, path=f"/api/sse/connect?connectionId={label}")
    )
    told = wait_for(lambda: _presence_of(label, two_nodes), description="the stream in the register")
    assert told["address"] == "127.0.0.1"


def test_http_typed_for_the_port_with_tls_leads_to_https(two_nodes: Nodes):  # noqa: F811
    connection = http.client.HTTPConnection("localhost", two_nodes.via_proxy.port, timeout=10)
    connection.request("GET", "/login?next=/account")
    answer = connection.getresponse()
    connection.close()
    assert (answer.status, answer.headers["Location"]) == (308, f"{two_nodes.via_proxy.url}/login?next=/account")


def test_node_killed_while_people_publish_costs_nobody_a_message(two_nodes: Nodes, streams: StreamOpener):  # noqa: F811
    readers = _readers(two_nodes, streams)
    victims = [reader for reader in readers if _node_of(reader, two_nodes) == 0]
    assert victims, "no stream was served by the node to be killed"
    load = PublishLoad(two_nodes.via_proxy)
    with load:
        load.wait_until_sent(50)
        two_nodes.first.kill()
        load.wait_until_sent(load.count + 150)
        two_nodes.first.start()
    expect_all_delivered(readers, list_log_ids(two_nodes.second), load.sent_ids)
    assert all(len(reader.response_headers) > 1 for reader in victims)
    record_load("a node killed", load, readers)


def test_rolling_restart_under_load_loses_nothing_and_refuses_nobody_for_long(
    two_nodes: Nodes,  # noqa: F811
    streams: StreamOpener,
):
    readers = _readers(two_nodes, streams)
    load = PublishLoad(two_nodes.via_proxy)
    with load:
        for node in two_nodes.nodes:
            load.wait_until_sent(load.count + 50)
            node.stop()
            node.start()
        load.wait_until_sent(load.count + 50)
    expect_all_delivered(readers, list_log_ids(two_nodes.first), load.sent_ids)
    assert all(reader.frames_of("SERVER_SHUTDOWN") for reader in readers)
    record_load("a rolling restart", load, readers)


def _readers(nodes: Nodes, streams: StreamOpener) -> list[StreamClient]:
    return [
        *streams.open_many(nodes.via_proxy, "bob", _STREAMS // 2),
        *streams.open_many(nodes.via_proxy, "charlie", _STREAMS // 2),
    ]


def _node_of(stream: StreamClient, nodes: Nodes) -> int:
    [index] = [n for n, node in enumerate(nodes.nodes) if stream.worker in node.get_worker_pids()]
    return index


def _presence_of(label: str, nodes: Nodes) -> dict | None:
    """What the workers wrote into Redis about the stream with that label."""
    with redis.Redis.from_url(nodes.first.environ["REDIS_URL"]) as client:
        for key in client.scan_iter("broadcast:presence:*"):
            told = [stream for streams in client.hvals(key) for stream in json.loads(streams)]
            if found := [stream for stream in told if stream["label"] == label]:
                return found[0]
    return None
