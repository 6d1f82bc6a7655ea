"""How this system speaks to Kafka's brokers. kafka-python is imported late: before the worker is patched, its loop would
stop every other greenlet for good.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from broadcast.config.settings import Settings

if TYPE_CHECKING:
    from kafka import KafkaConsumer, KafkaProducer

FETCH_BYTES = 8 * 1024 * 1024  # in one answer of a broker: a million waiting events must not come at once
_CLOSE_MS = 500


def consumer(settings: Settings) -> "KafkaConsumer":
    """A consumer without topics yet, whose records are `record_batches.Decoded`; does not block. Close it after any error: in
    3.0 its next poll may hang.
    """
    from kafka import KafkaConsumer

    from broadcast.ingest.kafka.partition_records import read_leniently

    _slow_down_a_silent_broker()
    opened = KafkaConsumer(
        **_link(settings),
        group_id=settings.kafka_group_id,
        auto_offset_reset=settings.kafka_auto_offset_reset,
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_poll_records=settings.kafka_max_poll_records,
        fetch_max_bytes=FETCH_BYTES,
        metadata_max_age_ms=30_000,
        session_timeout_ms=settings.kafka_session_timeout_ms,
        heartbeat_interval_ms=max(100, settings.kafka_session_timeout_ms // 5),
        allow_auto_create_topics=False,
    )
    opened._cluster.config["allow_auto_create_topics"] = False  # kafka-python 3.0 does not hand the option on
    read_leniently(opened)
    return opened


def producer(settings: Settings) -> "KafkaProducer":
    """A producer that may write one record twice but goes on after an error: an idempotent one is dead after the first."""
    from kafka import KafkaProducer

    opened = KafkaProducer(**_link(settings), acks="all", enable_idempotence=False, max_block_ms=3000, linger_ms=5)
    opened._metadata.config["allow_auto_create_topics"] = False  # as of a consumer: a mistyped topic stays a mistake
    return opened


def close(opened: "KafkaConsumer") -> None:
    """Close a consumer in half a second, without committing."""
    opened.close(autocommit=False, timeout_ms=_CLOSE_MS)


def close_producer(opened: "KafkaProducer") -> None:
    """Close a producer in half a second; what it had not sent yet is not waited for."""
    from kafka.errors import KafkaError

    with suppress(KafkaError):
        opened.close(timeout=_CLOSE_MS / 1000)


def _link(settings: Settings) -> dict[str, Any]:
    link: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "client_id": "broadcast",
        "api_version": tuple(map(int, settings.kafka_api_version.split("."))),  # else the constructor asks, and blocks
        "request_timeout_ms": settings.kafka_request_timeout_ms,
        "reconnect_backoff_max_ms": 2000,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        link["sasl_mechanism"] = settings.kafka_sasl_mechanism
        link["sasl_plain_username"] = settings.kafka_sasl_username
        link["sasl_plain_password"] = settings.kafka_sasl_password
    if settings.kafka_security_protocol.endswith("SSL"):
        link["ssl_check_hostname"] = settings.kafka_ssl_check_hostname
        for name in ("cafile", "certfile", "keyfile"):
            path = getattr(settings, f"kafka_ssl_{name}")
            link[f"ssl_{name}"] = str(path) if path else None
    return link


def _slow_down_a_silent_broker() -> None:
    """With an overdue heartbeat kafka-python 3.0 waits for 0 seconds, again and again: a broker that takes connections and
    never answers cost 87 % of a core and half a second's pause for every stream.
    """
    from kafka.coordinator.consumer import ConsumerCoordinator

    original = ConsumerCoordinator.time_to_next_poll
    if not hasattr(original, "at_least"):

        def time_to_next_poll(self: ConsumerCoordinator) -> float:
            return max(time_to_next_poll.at_least, original(self))

        time_to_next_poll.at_least = 0.1
        ConsumerCoordinator.time_to_next_poll = time_to_next_poll
