"""Kafka as in `deploy/compose.yaml`: the same settings on this machine, without the container."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from broadcast.config.settings import Settings
from broadcast.ingest.kafka import broker_check
from tests.integration.deploy.test_config_files import DEPLOY
from tests.support.kafka.server import JARS_DIR, build_java_command
from tests.support.ports import find_free_port

SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
_START_SECONDS = 60
pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(
        not any(JARS_DIR.glob("kafka-server-4*.jar")), reason="Kafka was not fetched: `make kafka` does"
    ),
]


def settings_of_compose(folder: Path, port: int) -> Path:
    """The image's variables as the server's properties (KAFKA_LOG_DIRS is log.dirs), on ports and in a folder of this test."""
    controller = str(find_free_port())
    lines = []
    for name, value in SERVICES["kafka"]["environment"].items():
        if name == "KAFKA_HEAP_OPTS":
            continue
        value = value.replace(":9093", f":{controller}").replace("//kafka:9092", f"//127.0.0.1:{port}")
        value = value.replace("//:9092", f"//127.0.0.1:{port}").replace("/var/lib/kafka/data", f"{folder}/data")
        lines.append(f"{name.removeprefix('KAFKA_').lower().replace('_', '.')}={value}\n")
    path = folder / "server.properties"
    path.write_text("".join(lines))
    return path


@contextmanager
def container(properties: Path, address: str) -> Iterator[AdminClient]:
    """One life of the container: it formats its volume if that is new, and serves."""
    log = properties.with_name("output.txt").open("ab")
    words = [
        *build_java_command(),
        "kafka.tools.StorageTool",
        "format",
        "--ignore-formatted",
        "-t",
        "YnJvYWRjYXN0LXRlc3RzLTE",
    ]
    subprocess.run([*words, "-c", properties], check=True, stdout=log, stderr=log, timeout=_START_SECONDS)
    process = subprocess.Popen([*build_java_command(), "kafka.Kafka", properties], stdout=log, stderr=log)
    try:
        admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(admin):
            assert process.poll() is None, properties.with_name("output.txt").read_text()[-2000:]
            assert time.monotonic() < deadline, "Kafka did not start"
        yield admin
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _answers(admin: AdminClient) -> bool:
    try:
        return bool(admin.list_topics(timeout=1).brokers)
    except KafkaException:
        return False


def test_topic_is_made_data_outlives_the_container_and_a_mistyped_name_makes_no_topic(tmp_path: Path):
    port = find_free_port()
    address = f"127.0.0.1:{port}"
    properties = settings_of_compose(tmp_path, port)
    words = SERVICES["topics"]["command"]
    topic, partitions, copies = (
        words[words.index(flag) + 1] for flag in ("--topic", "--partitions", "--replication-factor")
    )
    settings = Settings(kafka_bootstrap_servers=[address])

    with container(properties, address) as admin:
        assert topic in broker_check.check_brokers(settings), "until it is made, the doctor names it"
        admin.create_topics([NewTopic(topic, int(partitions), int(copies))])[topic].result(20)
        assert broker_check.check_brokers(settings) is None
        producer = Producer({"bootstrap.servers": address, "message.timeout.ms": 5000})
        problems = []
        producer.produce(topic, b"kept", on_delivery=lambda problem, _: problems.append(problem))
        producer.produce("broadcast.event.v1", b"lost", on_delivery=lambda problem, _: problems.append(problem))
        producer.flush(20)
        assert sorted(problem is None for problem in problems) == [False, True]
        assert "broadcast.event.v1" not in admin.list_topics(timeout=10).topics

    with container(properties, address) as admin:
        found = admin.list_topics(timeout=10).topics[topic].partitions
        assert len(found) == int(partitions)
        assert _records(address, topic, len(found)) == 1
        assert broker_check.check_brokers(settings) is None


def _records(address: str, topic: str, partitions: int) -> int:
    asking = Consumer({"bootstrap.servers": address, "group.id": f"ask-{uuid4().hex}"})
    try:
        ends = [asking.get_watermark_offsets(TopicPartition(topic, number), timeout=10) for number in range(partitions)]
        return sum(end - begin for begin, end in ends)
    finally:
        asking.close()
