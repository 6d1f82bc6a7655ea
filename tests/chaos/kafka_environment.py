"""Kafka for a run: Apache Kafka where Java and Maven are installed, otherwise the mock cluster inside librdkafka."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.integration.ingest.test_brokers import a_broker, answering
from tests.support.kafka.brokers import BOOTSTRAP_SERVERS, Brokers
from tests.support.kafka.server import PASSWORD
from tests.support.ports import find_free_port
from tests.support.system import PROJECT_ROOT

TOPIC = "test.worlds"
PARTITIONS = 3


@dataclass(frozen=True, slots=True)
class KafkaEnvironment:
    """`sasl_address` is the address of a listener that requires the password."""

    brokers: Brokers
    sasl_address: str


@contextmanager
def run_kafka() -> Iterator[KafkaEnvironment]:
    """Run brokers with the topic until the end of the block; those of KAFKA_BOOTSTRAP_SERVERS if it names any."""
    sasl_port = find_free_port()
    with _run_apache_kafka(sasl_port) as address:
        brokers = Brokers(address or BOOTSTRAP_SERVERS)
        brokers.create_topic(TOPIC, partitions=PARTITIONS)
        try:
            if address:
                yield KafkaEnvironment(brokers, f"127.0.0.1:{sasl_port}")
            else:  # neither the mock nor external brokers have such a listener
                with answering(a_broker(password=PASSWORD.encode(), topics=(TOPIC,))) as fake_broker_address:
                    yield KafkaEnvironment(brokers, fake_broker_address)
        finally:
            brokers.close()


@contextmanager
def _run_apache_kafka(sasl_port: int) -> Iterator[str | None]:
    """Yield the address of a running Apache Kafka; None if it cannot run, or other brokers are given."""
    if BOOTSTRAP_SERVERS:
        yield None
        return
    args = ["--asking-port", str(sasl_port)]
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.kafka.server", *args], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        line = server.stdout.readline()
        yield line.removeprefix("Kafka: ").strip() or None
    finally:
        server.terminate()
        server.wait(40)
