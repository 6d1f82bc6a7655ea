"""The brokers of the tests: the mock cluster in a process of its own, or those of KAFKA_BOOTSTRAP_SERVERS.

pytest itself speaks to them through confluent-kafka, whose threads are real ones; nothing here is patched.
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

from tests.system import TOP, wait_for

_QUEUED = 50_000  # records that the producer keeps; it refuses more than 100,000
KAFKA = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")


class Brokers:
    """Topics, records and offsets. `is_mock`: only the mock can be taken down and up again."""

    def __init__(self, address: str | None = KAFKA):
        self.is_mock = address is None
        self._process: subprocess.Popen | None = None
        if self.is_mock:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.kafka.mock_cluster"],
                cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
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

    def tell(self, *words: object) -> None:
        """Give the mock a command: down, up, rtt."""
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "ok\n"

    def topic(self, name: str = "", *, partitions: int = 3) -> str:
        """Make a topic; without a name, one that no other test has."""
        name = name or f"test.{uuid.uuid4().hex[:12]}"
        if self.is_mock:
            self.tell("topic", name, partitions)
        else:
            config = {"max.message.bytes": "8000000"}
            new = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config)
            admin = AdminClient({"bootstrap.servers": self.address})
            for made in admin.create_topics([new]).values():
                made.result(20)
        return name

    def send(
        self, topic: str, events: Iterable[Any], *, key: Any = None, partition: int = -1, headers: Any = None
    ) -> None:
        """Write values (JSON unless bytes or None) and wait until the brokers have them. `key` may be made of the event."""
        failed: list[object] = []
        for event in events:
            value = event if isinstance(event, bytes | None) else json.dumps(event).encode()
            named = key(event) if callable(key) else key
            while len(self.producer) >= _QUEUED:
                self.producer.poll(0.1)
            self.producer.produce(
                topic, value, key=named, partition=partition, headers=headers,
                on_delivery=lambda problem, _: problem and failed.append(problem),
            )  # fmt: skip
            self.producer.poll(0)
        assert self.producer.flush(30) == 0
        assert not failed, failed[0]

    def send_batch(self, topic: str, partition: int, batch: bytes) -> None:
        """Write the bytes of a batch as they are, which no producer does."""
        named = struct.pack(">h", len(topic)) + topic.encode()
        data = struct.pack(">iii", 1, partition, len(batch)) + batch
        body = struct.pack(">hhihhhi", 0, 3, 1, -1, -1, 1, 10_000) + struct.pack(">i", 1) + named + data
        host, _, port = self.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as link, link.makefile("rb") as answers:
            link.sendall(struct.pack(">i", len(body)) + body)
            (size,) = struct.unpack(">i", answers.read(4))
            answer = answers.read(size)
        (error,) = struct.unpack_from(">h", answer, 4 + 4 + len(named) + 4 + 4)
        assert error == 0, f"the broker refused the batch: {error}"

    def committed(self, group: str, topic: str, partitions: int = 3) -> list[int]:
        """The group's offsets, by partition; -1001 where it has none."""
        with_group = self._consumer(group)
        try:
            wanted = [TopicPartition(topic, number) for number in range(partitions)]
            return [found.offset for found in with_group.committed(wanted, timeout=10)]
        finally:
            with_group.close()

    def ends(self, topic: str, partitions: int = 3) -> list[int]:
        """The offset after the last record, by partition."""
        asking = self._consumer("ends")
        try:
            numbers = range(partitions)
            return [asking.get_watermark_offsets(TopicPartition(topic, n), timeout=10)[1] for n in numbers]
        finally:
            asking.close()

    def rewind(self, group: str, topic: str, by: int, partitions: int = 3) -> None:
        """Set the group's offsets back, as an operator does after a mistake."""
        back = [max(0, offset - by) for offset in self.committed(group, topic, partitions)]
        offsets = [TopicPartition(topic, number, offset) for number, offset in enumerate(back)]
        if self.is_mock:
            with_group = self._consumer(group)
            with_group.commit(offsets=offsets, asynchronous=False)
            with_group.close()
            return
        admin = AdminClient({"bootstrap.servers": self.address})
        asked = admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, offsets)])
        for done in asked.values():
            done.result(20)

    def wait_until_consumed(self, group: str, topic: str, *, partitions: int = 3, seconds: float = 60) -> None:
        wait_for(
            lambda: [max(0, n) for n in self.committed(group, topic, partitions)] == self.ends(topic, partitions),
            seconds=seconds,
            what="all records to be consumed and committed",
        )

    def read_all(self, topic: str, *, partition: int = 0, count: int, seconds: float = 20) -> list[Any]:
        """The first `count` records of a partition."""
        reading = self._consumer(f"read-{uuid.uuid4().hex[:8]}")
        found: list[Any] = []
        try:
            reading.assign([TopicPartition(topic, partition, 0)])
            while len(found) < count:
                record = reading.poll(seconds)
                assert record is not None, f"{len(found)} of {count} records of {topic}"
                assert record.error() is None, record.error()
                found.append(record)
            return found
        finally:
            reading.close()

    def _consumer(self, group: str) -> Consumer:
        return Consumer({"bootstrap.servers": self.address, "group.id": group, "enable.auto.commit": False})
