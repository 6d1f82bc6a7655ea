"""Writes dead letters to the topic `<topic>.dlt`, for those who monitor Kafka and not the console. The table is
authoritative.

Key, value and headers are as received. Added headers have Spring's names and encodings, which other tools read:
partition as 4 bytes, offset and timestamp as 8, big-endian. Delivery is at least once: a letter is marked after the
brokers have it, so a crash may duplicate it.
"""

import struct
from typing import TYPE_CHECKING

import structlog
from flask import Flask

from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.ingest.kafka import client
from broadcast.store import dead_letters
from broadcast.store.models.ingest import DeadLetter
from broadcast.store.transactions import write_transaction

if TYPE_CHECKING:
    from kafka import KafkaProducer

TOPIC_SUFFIX = ".dlt"
_log = structlog.get_logger(__name__)
_SEND_TIMEOUT_SECONDS = 5.0


class DeadLetterForwarder:
    """Writes waiting letters to their topics, from one greenlet."""

    def __init__(self, app: Flask, settings: Settings):
        self._app, self._settings = app, settings
        self._producer: KafkaProducer | None = None

    def forward_pending(self) -> bool:
        """Write letters that the topics do not have yet. False after a failure, which is logged."""
        from kafka.errors import KafkaError

        with self._app.app_context():
            try:
                while letters := dead_letters.list_unforwarded():
                    self._send_letters(letters)
            except KafkaError as problem:
                _log.error("dlt.failed", problem=f"{type(problem).__name__}: {problem}"[:300])
                self.close()
                return False
        return True

    def _send_letters(self, letters: list[DeadLetter]) -> None:
        self._producer = self._producer or client.create_producer(self._settings)
        futures = []
        for letter in letters:
            topic, headers = letter.topic + TOPIC_SUFFIX, _build_headers(letter)
            futures.append(self._producer.send(topic, value=letter.value, key=letter.key, headers=headers))
        for future in futures:
            future.get(timeout=_SEND_TIMEOUT_SECONDS)
        ids = [letter.id for letter in letters]
        with write_transaction() as session:
            dead_letters.mark_forwarded(session, ids, at=clock.now())

    def close(self) -> None:
        """Close the connections, within half a second."""
        producer, self._producer = self._producer, None
        if producer is not None:
            client.close_producer(producer)


def _build_headers(letter: DeadLetter) -> list[tuple[str, bytes]]:
    original_headers = list(dead_letters.to_record(letter).headers)
    return original_headers + [
        ("kafka_dlt-original-topic", letter.topic.encode()),
        ("kafka_dlt-original-partition", struct.pack(">i", letter.partition)),
        ("kafka_dlt-original-offset", struct.pack(">q", letter.offset)),
        ("kafka_dlt-original-timestamp", struct.pack(">q", letter.timestamp_ms or 0)),
        ("kafka_dlt-exception-fqcn", letter.code.encode()),
        ("kafka_dlt-exception-message", letter.reason.encode()),
    ]
