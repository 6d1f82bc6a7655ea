"""Faults of Kafka ingestion: unreadable batches among batches of every codec, and misconfigured brokers."""

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from confluent_kafka import Producer

from broadcast.config.settings import Settings
from tests.chaos.faults import allow_worker_starts, register_fault
from tests.chaos.kafka_environment import PARTITIONS, TOPIC
from tests.chaos.readiness import ExpectedProblem
from tests.chaos.scenario import Scenario
from tests.integration.ingest.test_brokers import a_web_server, answering
from tests.support.builders import build_message
from tests.support.kafka.server import PASSWORD, USER
from tests.support.kafka_batches import build_batch, build_gzip_bomb
from tests.support.system import wait_for

_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
_EVENTS_PER_BATCH = 5


@register_fault("F28", "Kafka: batches of every codec among poison", requirement="kafka")
def send_poison_among_codecs(scenario: Scenario, scale: float) -> None:
    """Each event is published once; each poison record is a dead letter; no problem is reported."""
    brokers, keys, initial_dead_letters = scenario.environment.kafka.brokers, [], _count_dead_letters(scenario)
    options = {"bootstrap.servers": brokers.address, "log_level": 2}
    producers = {codec: Producer(options | {"compression.type": codec}) for codec in _CODECS}
    round_count = max(2, int(20 * scale))
    poison_count = 0
    for _ in range(round_count):
        for codec, producer in producers.items():
            new_keys = [_record_pending_event(scenario) for _ in range(_EVENTS_PER_BATCH)]
            for key in new_keys:
                producer.produce(TOPIC, json.dumps(build_message(title=key, content=codec)).encode(), partition=0)
            assert producer.flush(30) == 0
            keys += new_keys
            brokers.produce(TOPIC, [b"{nope", b"\xff\xfe"], partition=0)
            poison_count += 2
        if brokers.is_mock:  # Apache Kafka rejects these from a producer
            brokers.send_batch(TOPIC, 0, build_batch([b"a", b"b"])[:-1] + b"!")
            brokers.send_batch(TOPIC, 0, build_batch([b"x"], codec=1, compress=lambda _: build_gzip_bomb(300)))
            brokers.send_batch(TOPIC, 0, build_batch([b"x"], codec=7))
            poison_count += 3
    _expect_published(scenario, keys)
    wait_for(
        lambda: _count_dead_letters(scenario) - initial_dead_letters == poison_count,
        seconds=20,
        description=f"{poison_count} dead letters",
    )
    scenario.measurements |= {"events": len(keys), "dead letters": poison_count, "Apache Kafka": not brokers.is_mock}


@register_fault("F29", "Kafka: no topic, no broker, wrong password", requirement="kafka")
def misconfigure_brokers(scenario: Scenario, scale: float) -> None:
    """Every worker reports the reason in every response while it lasts; events come in as soon as it is fixed."""
    brokers, missing_topic = scenario.environment.kafka.brokers, f"test.missing-{scenario.seed}"
    with restart_misconfigured(scenario, scale, f"no topic {missing_topic}", KAFKA_TOPICS=missing_topic) as problem:
        brokers.create_topic(missing_topic, partitions=PARTITIONS)
        problem.ended_at = time.monotonic()
        _expect_event_published(scenario, missing_topic)
    with (
        answering(a_web_server) as address,
        restart_misconfigured(scenario, scale, "no Kafka broker", KAFKA_BOOTSTRAP_SERVERS=address),
    ):
        pass
    sasl_settings = {
        "KAFKA_BOOTSTRAP_SERVERS": scenario.environment.kafka.sasl_address,
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    }
    credentials = sasl_settings | {"KAFKA_SASL_USERNAME": USER, "KAFKA_SASL_PASSWORD": "wrong"}
    with restart_misconfigured(scenario, scale, "KAFKA_SASL_PASSWORD", **credentials):
        pass
    if not brokers.is_mock:
        with restart_with_settings(scenario, **credentials | {"KAFKA_SASL_PASSWORD": PASSWORD}):
            _expect_event_published(scenario, TOPIC)
    _expect_event_published(scenario, TOPIC)
    scenario.measurements["Apache Kafka"] = not brokers.is_mock


@contextmanager
def restart_misconfigured(
    scenario: Scenario, scale: float, expected_text: str, **settings: str
) -> Iterator[ExpectedProblem]:
    """Restart with these settings, and wait until the reason must have been reported for a while."""
    readiness = scenario.readiness
    with (
        readiness.may_report("kafka"),
        restart_with_settings(scenario, **settings),
        _expect_reported(scenario, expected_text) as problem,
    ):
        readiness.wait_until_reported(problem)
        time.sleep(10 * scale)
        yield problem


def _expect_reported(scenario: Scenario, expected_text: str) -> AbstractContextManager[ExpectedProblem]:
    """Expect the reason after twice the request timeout: enough for one failed attempt of a worker."""
    return scenario.readiness.must_report(
        "kafka", expected_text=expected_text, within_seconds=2 * Settings().kafka_request_timeout_ms / 1000
    )


@contextmanager
def restart_with_settings(scenario: Scenario, **settings: str) -> Iterator[None]:
    """Restart with other settings, and at the end with the previous ones."""
    original_environ = dict(scenario.system.environ)
    _restart(scenario, original_environ | settings)
    try:
        yield
    finally:
        _restart(scenario, original_environ)


def _restart(scenario: Scenario, environ: dict[str, str]) -> None:
    scenario.system.stop()
    scenario.system.environ = environ
    with allow_worker_starts(scenario):
        scenario.system.start()


def _expect_event_published(scenario: Scenario, topic: str) -> None:
    key = _record_pending_event(scenario)
    scenario.environment.kafka.brokers.produce(topic, [build_message(title=key)])
    _expect_published(scenario, [key])


def _record_pending_event(scenario: Scenario) -> str:
    """Record an event that is about to be sent and may or may not be published; return its title."""
    key = scenario.make_key()
    scenario.history.record_event(
        "publish", key=key, audience={"kind": "everyone"}, began=time.monotonic(), result="info", id=None
    )
    return key


def _expect_published(scenario: Scenario, keys: list[str]) -> None:
    """Treat them from now on as if each had been answered ok."""

    def find_published_ids() -> dict[str, int] | None:
        ids_by_title = {title: id for _, id, title in scenario.list_broadcasts() if title in keys}
        return ids_by_title if len(ids_by_title) == len(set(keys)) else None

    ids = wait_for(find_published_ids, seconds=60, description=f"{len(keys)} events to be published")
    for key in keys:
        scenario.history.record_event(
            "publish", key=key, audience={"kind": "everyone"}, began=time.monotonic(), result="ok", id=ids[key]
        )


def _count_dead_letters(scenario: Scenario) -> int:
    """Return the number of dead letters that wait."""
    count, page_query = 0, ""
    while page_query is not None:
        page = scenario.send_request(
            "GET", f"/api/admin/dlt?limit=200&status=WAITING{page_query}", scenario.environment.admin_token
        ).body
        count += len(page["items"])
        page_query = page["next"] and f"&after={page['next']}"
    return count
