"""Kafka for a run: Apache Kafka itself where Java and Maven are, otherwise the mock cluster inside librdkafka."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.ingest.test_brokers import a_broker, answering
from tests.kafka.brokers import KAFKA, Brokers
from tests.kafka.server import PASSWORD
from tests.ports import free_port
from tests.system import TOP

TOPIC = "test.worlds"
PARTITIONS = 3


@dataclass(frozen=True, slots=True)
class Kafka:
    """`asking` is the address of a listener that wants that password."""

    brokers: Brokers
    asking: str


@contextmanager
def a_kafka() -> Iterator[Kafka]:
    """Brokers with the topic, ended at the end; those of KAFKA_BOOTSTRAP_SERVERS if it names any."""
    asking = free_port()
    with _apache(asking) as address:
        brokers = Brokers(address or KAFKA)
        brokers.topic(TOPIC, partitions=PARTITIONS)
        try:
            if address:
                yield Kafka(brokers, f"127.0.0.1:{asking}")
            else:  # neither the mock nor brokers that somebody else set up have such a listener
                with answering(a_broker(password=PASSWORD.encode(), topics=(TOPIC,))) as stand_in:
                    yield Kafka(brokers, stand_in)
        finally:
            brokers.close()


@contextmanager
def _apache(asking: int) -> Iterator[str | None]:
    """The address of one that runs now; None where it cannot, or another one is given."""
    if KAFKA:
        yield None
        return
    words = ["--asking-port", str(asking)]
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.kafka.server", *words], cwd=TOP, stdout=subprocess.PIPE, text=True
    )
    try:
        line = server.stdout.readline()
        yield line.removeprefix("Kafka: ").strip() or None
    finally:
        server.terminate()
        server.wait(40)
