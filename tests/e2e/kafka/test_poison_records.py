"""Poison records become dead letters with reason and position, and later records are published (F08)."""

import json
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.e2e.kafka.test_exactly_once import metric
from tests.support.builders import build_message, build_role_message
from tests.support.inbound_records import POISON_RECORDS, STRUCTURED_HEADERS, build_cloud_event
from tests.support.kafka.brokers import Brokers
from tests.support.kafka_batches import build_batch, build_gzip_bomb, build_record
from tests.support.process_fixtures import wait_for_workers
from tests.support.system import System, wait_for

pytestmark = pytest.mark.service

_MOCK_KEEPS = 4 * 2**20  # more than 5 MB in a partition, and the mock cluster throws the oldest away


def dead_letters(system: System, status: str = "WAITING") -> list[dict]:
    listed = system.call("GET", f"/api/admin/dlt?limit=200&status={status}", token=system.get_token("alice", "admin"))[
        1
    ]
    return sorted(listed["items"], key=lambda item: item["offset"])


def titles(system: System) -> list[str]:
    listed = system.call("GET", "/api/admin/broadcasts?limit=200", token=system.get_token("alice", "admin"))[1]
    return [item["title"] for item in reversed(listed["items"])]


def test_every_poison_is_kept_with_its_reason_and_holds_nothing_up(brokers: Brokers, reading):
    topic = brokers.create_topic(partitions=1)
    system: System = reading(brokers, topic)
    expected = []
    for n, (_, record, code) in enumerate(POISON_RECORDS):
        value = record.value[:_MOCK_KEEPS] if record.value and brokers.is_mock else record.value
        brokers.produce(topic, [value], key=record.key, headers=list(record.headers))
        brokers.produce(
            topic, [build_cloud_event(str(n), data=build_message(title=f"after {n}"))], headers=list(STRUCTURED_HEADERS)
        )
        if len(value or b"") > 2**20:  # the mock would drop what was not read yet
            wait_for(lambda n=n: f"after {n}" in titles(system), seconds=10, description=f"the event after poison {n}")
        expected.append((2 * n, code))
    wait_for(
        lambda: len(titles(system)) == len(POISON_RECORDS), seconds=20, description="every event between the poison"
    )
    assert titles(system) == [f"after {n}" for n in range(len(POISON_RECORDS))]
    kept = dead_letters(system)
    assert [(item["offset"], item["code"]) for item in kept] == expected
    assert {(item["topic"], item["partition"]) for item in kept} == {(topic, 0)}
    assert all(item["reason"].endswith(".") for item in kept)


def test_unknown_audience_waits_until_it_exists_and_is_redriven(brokers: Brokers, reading):
    topic = brokers.create_topic(partitions=1)
    system: System = reading(brokers, topic)
    event = build_cloud_event("1", data=build_role_message("night", title="Line 4"))
    brokers.produce(topic, [event], headers=list(STRUCTURED_HEADERS))
    [item] = wait_for(lambda: dead_letters(system), description="the dead letter")
    assert (item["code"], item["sourceId"]) == ("audience", "1")
    system.run_flask("set-roles", "--username", "bob", "--role", "ops", "--role", "night")
    token = system.get_token("alice", "admin")
    assert system.call("POST", f"/api/admin/dlt/{item['id']}/redrive", token=token)[1]["outcome"] == "published"
    assert titles(system) == ["Line 4"]
    assert dead_letters(system) == []


def test_dead_letters_go_to_their_topic_too_with_headers_that_others_read(brokers: Brokers, reading):
    topic = brokers.create_topic(partitions=1)
    brokers.create_topic(f"{topic}.dlt", partitions=1)
    system: System = reading(brokers, topic, KAFKA_DLT="1")
    brokers.produce(topic, [build_cloud_event("1")], headers=list(STRUCTURED_HEADERS))
    brokers.produce(topic, [b"{nope"], key="k", headers=[("x", b"\xff")])
    [found] = brokers.read_records(f"{topic}.dlt", count=1)
    assert (found.value(), found.key()) == (b"{nope", b"k")
    headers = dict(found.headers())
    assert headers["x"] == b"\xff"
    assert headers["kafka_dlt-original-topic"] == topic.encode()
    assert int.from_bytes(headers["kafka_dlt-original-partition"], "big") == 0
    assert (int.from_bytes(headers["kafka_dlt-original-offset"], "big"), len(headers["kafka_dlt-original-offset"])) == (
        1,
        8,
    )
    assert len(headers["kafka_dlt-original-timestamp"]) == 8
    assert headers["kafka_dlt-exception-fqcn"] == b"not-json"
    assert headers["kafka_dlt-exception-message"].endswith(b".")
    assert len(dead_letters(system)) == 1


def test_what_cannot_be_decoded_costs_its_record_or_batch_and_stops_no_partition(mock: Brokers, reading):
    topic = mock.create_topic(partitions=2)
    system: System = reading(mock, topic)
    mock.send_batch(
        topic,
        0,
        build_batch(
            [
                bare_body("first"),
                build_record(b"{}", offset_delta=1, headers=[(b"\xff", b"x")]),
                bare_body("same batch"),
            ]
        ),
    )
    whole = build_batch([b"a", b"b"], first=3)
    mock.send_batch(topic, 0, whole[:-1] + b"!")
    mock.send_batch(topic, 0, build_batch([b"x"], codec=1, compress=lambda _: build_gzip_bomb(300)))
    mock.send_batch(topic, 0, build_batch([b"x"], codec=7))
    mock.produce(topic, [build_message(title="after it")], partition=0)
    mock.produce(topic, [build_message(title="elsewhere")], partition=1)
    expected = ["after it", "elsewhere", "first", "same batch"]
    wait_for(lambda: sorted(titles(system)) == expected, seconds=30, description="everything that can be read")
    kept = [(item["partition"], item["offset"], item["lastOffset"], item["code"]) for item in dead_letters(system)]
    assert kept == [
        (0, 1, None, "undecodable"), (0, 3, 4, "undecodable"), (0, 5, 5, "size"), (0, 6, 6, "undecodable")
    ]  # fmt: skip
    mock.wait_until_consumed(f"group-of-{topic}", topic, partitions=2, seconds=20)
    assert metric(system, "broadcast_kafka_failures_total") == 0
    peak_kib = max(peak_memory_kib(pid) for pid in wait_for_workers(system))
    assert peak_kib < 400 * 1024


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec_of_producers_is_read(brokers: Brokers, reading, codec):
    topic = brokers.create_topic(partitions=1)
    system: System = reading(brokers, topic)
    producer = Producer({"bootstrap.servers": brokers.address, "compression.type": codec, "linger.ms": 200})
    for n in range(20):
        producer.produce(topic, json.dumps(build_message(title=f"{codec} {n}")).encode())
    assert producer.flush(20) == 0
    wait_for(lambda: titles(system) == [f"{codec} {n}" for n in range(20)], seconds=30, description="the events")
    assert dead_letters(system) == []


def bare_body(title: str) -> bytes:
    return json.dumps(build_message(title=title)).encode()


def peak_memory_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
