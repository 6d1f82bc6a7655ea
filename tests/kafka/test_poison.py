"""Poison in the stream: it goes to the dead letters with its reason and place, and what comes after it goes out (F08)."""

import pytest

from tests.acts import a_message, to_role
from tests.ingest.records import POISON, STRUCTURED, an_event
from tests.kafka.brokers import Brokers
from tests.system import System, wait_for

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]

_MOCK_KEEPS = 4 * 2**20  # more than 5 MB in a partition, and the mock cluster throws the oldest away


def dead_letters(system: System, status: str = "WAITING") -> list[dict]:
    listed = system.call("GET", f"/api/admin/dlt?limit=200&status={status}", token=system.token("alice", "admin"))[1]
    return sorted(listed["items"], key=lambda item: item["offset"])


def titles(system: System) -> list[str]:
    listed = system.call("GET", "/api/admin/broadcasts?limit=200", token=system.token("alice", "admin"))[1]
    return [item["title"] for item in reversed(listed["items"])]


def test_every_poison_is_kept_with_its_reason_and_holds_nothing_up(brokers: Brokers, reading):
    topic = brokers.topic(partitions=1)
    system: System = reading(brokers, topic)
    expected = []
    for n, (_, record, code) in enumerate(POISON):
        value = record.value[:_MOCK_KEEPS] if record.value and brokers.is_mock else record.value
        brokers.send(topic, [value], key=record.key, headers=list(record.headers))
        brokers.send(topic, [an_event(str(n), data=a_message(title=f"after {n}"))], headers=list(STRUCTURED))
        if len(value or b"") > 2**20:  # the mock would drop what was not read yet
            wait_for(lambda n=n: f"after {n}" in titles(system), seconds=10, what=f"the event after poison {n}")
        expected.append((2 * n, code))
    wait_for(lambda: len(titles(system)) == len(POISON), seconds=20, what="every event between the poison")
    assert titles(system) == [f"after {n}" for n in range(len(POISON))]
    kept = dead_letters(system)
    assert [(item["offset"], item["code"]) for item in kept] == expected
    assert {(item["topic"], item["partition"]) for item in kept} == {(topic, 0)}
    assert all(item["reason"].endswith(".") for item in kept)


def test_unknown_audience_waits_until_it_exists_and_is_redriven(brokers: Brokers, reading):
    topic = brokers.topic(partitions=1)
    system: System = reading(brokers, topic)
    event = an_event("1", data=to_role("night", title="Line 4"))
    brokers.send(topic, [event], headers=list(STRUCTURED))
    [item] = wait_for(lambda: dead_letters(system), what="the dead letter")
    assert (item["code"], item["sourceId"]) == ("audience", "1")
    system.flask("set-roles", "--username", "bob", "--role", "ops", "--role", "night")
    token = system.token("alice", "admin")
    assert system.call("POST", f"/api/admin/dlt/{item['id']}/redrive", token=token)[1]["outcome"] == "published"
    assert titles(system) == ["Line 4"]
    assert dead_letters(system) == []


def test_dead_letters_go_to_their_topic_too_with_headers_that_others_read(brokers: Brokers, reading):
    topic = brokers.topic(partitions=1)
    brokers.topic(f"{topic}.dlt", partitions=1)
    system: System = reading(brokers, topic, KAFKA_DLT="1")
    brokers.send(topic, [an_event("1")], headers=list(STRUCTURED))
    brokers.send(topic, [b"{nope"], key="k", headers=[("x", b"\xff")])
    [found] = brokers.read_all(f"{topic}.dlt", count=1)
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
