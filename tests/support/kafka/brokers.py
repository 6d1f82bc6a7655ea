"""The brokers of the tests: the mock cluster in its own process, or those of KAFKA_BOOTSTRAP_SERVERS.

pytest talks to them through confluent-kafka, which uses real threads; nothing here is monkey-patched.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import uuid
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.system import PROJECT_ROOT, wait_for

_MAX_QUEUED_RECORDS = 50_000  # records in the producer's queue; it refuses more than 100,000
BOOTSTRAP_SERVERS = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")


class Brokers:
    """Topics, records and offsets. `is_mock`: only the mock can be stopped and started."""

    def __init__(self, address: str | None = BOOTSTRAP_SERVERS):
        self.is_mock = address is None
        self._process: subprocess.Popen | None = None
        if self.is_mock:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.kafka.mock_cluster"],
                cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            address = self._process.stdout.readline().strip()
        assert address, "the mock cluster did not start"
        self.address = address
        self.producer = Producer(
            {"bootstrap.servers": address, "linger.ms": 2, "message.max.bytes": 8_000_000, "log_level": 2}
        )

    def close(self) -> None:
        self.producer.flush(5)
        if self._process:
            self._process.stdin.close()
            self._process.wait(10)

    def send_command(self, *args: object) -> None:
        """Send the mock a command: down, up, rtt."""
        self._process.stdin.write(" ".join(map(str, args)) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "ok\n"

    def create_topic(self, name: str = "", *, partitions: int = 3) -> str:
        """Create a topic and return its name; without a name, a unique one."""
        name = name or f"test.{uuid.uuid4().hex[:12]}"
        if self.is_mock:
            self.send_command("topic", name, partitions)
        else:
            config = {"max.message.bytes": "8000000"}
            new_topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config)
            admin = AdminClient({"bootstrap.servers": self.address})
            for creation in admin.create_topics([new_topic]).values():
                creation.result(20)
        return name

    def produce(
        self, topic: str, events: Iterable[Any], *, key: Any = None, partition: int = -1, headers: Any = None
    ) -> None:
        """Write values (JSON unless bytes or None) and wait for the acks. `key` may be a function of the event."""
        delivery_errors: list[object] = []
        for event in events:
            value = event if isinstance(event, bytes | None) else json.dumps(event).encode()
            record_key = key(event) if callable(key) else key
            while len(self.producer) >= _MAX_QUEUED_RECORDS:
                self.producer.poll(0.1)
            self.producer.produce(
                topic, value, key=record_key, partition=partition, headers=headers,
                on_delivery=lambda problem, _: problem and delivery_errors.append(problem),
            )  # fmt: skip
            self.producer.poll(0)
        assert self.producer.flush(30) == 0
        assert not delivery_errors, delivery_errors[0]

    def send_batch(self, topic: str, partition: int, batch: bytes) -> None:
        """Write raw batch bytes, which no producer does."""
        encoded_topic = struct.pack(">h", len(topic)) + topic.encode()
        data = struct.pack(">iii", 1, partition, len(batch)) + batch
        body = struct.pack(">hhihhhi", 0, 3, 1, -1, -1, 1, 10_000) + struct.pack(">i", 1) + encoded_topic + data
        host, _, port = self.address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=10) as connection,
            connection.makefile("rb") as answers,
        ):
            connection.sendall(struct.pack(">i", len(body)) + body)
            (size,) = struct.unpack(">i", answers.read(4))
            response = answers.read(size)
        (error,) = struct.unpack_from(">h", response, 4 + 4 + len(encoded_topic) + 4 + 4)
        assert error == 0, f"the broker refused the batch: {error}"

    def get_committed_offsets(self, group: str, topic: str, partitions: int = 3) -> list[int]:
        """Return the group's offsets by partition; -1001 where it has none."""
        consumer = self._make_consumer(group)
        try:
            topic_partitions = [TopicPartition(topic, number) for number in range(partitions)]
            return [
                committed_partition.offset for committed_partition in consumer.committed(topic_partitions, timeout=10)
            ]
        finally:
            consumer.close()

    def get_end_offsets(self, topic: str, partitions: int = 3) -> list[int]:
        """Return the offset after the last record, by partition."""
        consumer = self._make_consumer("ends")
        try:
            numbers = range(partitions)
            return [consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=10)[1] for n in numbers]
        finally:
            consumer.close()

    def rewind_offsets(self, group: str, topic: str, record_count: int, partitions: int = 3) -> None:
        """Rewind the group's offsets, as an operator does after a mistake."""
        new_offsets = [max(0, offset - record_count) for offset in self.get_committed_offsets(group, topic, partitions)]
        offsets = [TopicPartition(topic, number, offset) for number, offset in enumerate(new_offsets)]
        if self.is_mock:
            consumer = self._make_consumer(group)
            consumer.commit(offsets=offsets, asynchronous=False)
            consumer.close()
            return
        admin = AdminClient({"bootstrap.servers": self.address})
        alterations = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, offsets)])
        for alteration in alterations.values():
            alteration.result(20)

    def wait_until_consumed(self, group: str, topic: str, *, partitions: int = 3, seconds: float = 60) -> None:
        wait_for(
            lambda: (
                [max(0, n) for n in self.get_committed_offsets(group, topic, partitions)]
                == self.get_end_offsets(topic, partitions)
            ),
            seconds=seconds,
            description="all records to be consumed and committed",
        )

    def read_records(self, topic: str, *, partition: int = 0, count: int, seconds: float = 20) -> list[Any]:
        """Return the first `count` records of a partition."""
        consumer = self._make_consumer(f"read-{uuid.uuid4().hex[:8]}")
        records: list[Any] = []
        try:
            consumer.assign([TopicPartition(topic, partition, 0)])
            while len(records) < count:
                record = consumer.poll(seconds)
                assert record is not None, f"{len(records)} of {count} records of {topic}"
                assert record.error() is None, record.error()
                records.append(record)
            return records
        finally:
            consumer.close()

    def _make_consumer(self, group: str) -> Consumer:
        return Consumer({"bootstrap.servers": self.address, "group.id": group, "enable.auto.commit": False})
