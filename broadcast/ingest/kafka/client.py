"""Kafka consumers and producers. kafka-python is imported late: before gevent patches the worker, its loop would block
every other greenlet for good.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from broadcast.config.settings import Settings

if TYPE_CHECKING:
    from kafka import KafkaConsumer, KafkaProducer

MAX_FETCH_BYTES = 8 * 1024 * 1024  # per fetch response: a million waiting events must not arrive at once
_CLOSE_TIMEOUT_MS = 500


def create_consumer(settings: Settings) -> "KafkaConsumer":
    """A consumer without topics, whose records are `record_batches.DecodedRecord`. Does not block. Close it after any
    error: in 3.0 its next poll may hang.
    """
    from kafka import KafkaConsumer

    from broadcast.ingest.kafka.partition_records import install_lenient_decoder

    _patch_heartbeat_busy_loop()
    kafka_consumer = KafkaConsumer(
        **_build_connection_options(settings),
        group_id=settings.kafka_group_id,
        auto_offset_reset=settings.kafka_auto_offset_reset,
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_poll_records=settings.kafka_max_poll_records,
        fetch_max_bytes=MAX_FETCH_BYTES,
        metadata_max_age_ms=30_000,
        session_timeout_ms=settings.kafka_session_timeout_ms,
        heartbeat_interval_ms=max(100, settings.kafka_session_timeout_ms // 5),
        allow_auto_create_topics=False,
    )
    kafka_consumer._cluster.config["allow_auto_create_topics"] = False  # kafka-python 3.0 does not pass the option on
    install_lenient_decoder(kafka_consumer)
    return kafka_consumer


def create_producer(settings: Settings) -> "KafkaProducer":
    """A producer that may write a record twice but survives errors: an idempotent one is dead after the first."""
    from kafka import KafkaProducer

    kafka_producer = KafkaProducer(
        **_build_connection_options(settings), acks="all", enable_idempotence=False, max_block_ms=3000, linger_ms=5
    )
    # as for a consumer: a mistyped topic stays an error
    kafka_producer._metadata.config["allow_auto_create_topics"] = False
    return kafka_producer


def close_consumer(kafka_consumer: "KafkaConsumer") -> None:
    """Close a consumer in half a second, without committing."""
    kafka_consumer.close(autocommit=False, timeout_ms=_CLOSE_TIMEOUT_MS)


def close_producer(kafka_producer: "KafkaProducer") -> None:
    """Close a producer in half a second, without waiting for unsent records."""
    from kafka.errors import KafkaError

    with suppress(KafkaError):
        kafka_producer.close(timeout=_CLOSE_TIMEOUT_MS / 1000)


def _build_connection_options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "client_id": "broadcast",
        "api_version": tuple(map(int, settings.kafka_api_version.split("."))),  # else the constructor asks, and blocks
        "request_timeout_ms": settings.kafka_request_timeout_ms,
        "reconnect_backoff_max_ms": 2000,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_sasl_username
        options["sasl_plain_password"] = settings.kafka_sasl_password
    if settings.kafka_security_protocol.endswith("SSL"):
        options["ssl_check_hostname"] = settings.kafka_ssl_check_hostname
        for name in ("cafile", "certfile", "keyfile"):
            path = getattr(settings, f"kafka_ssl_{name}")
            options[f"ssl_{name}"] = str(path) if path else None
    return options


def _patch_heartbeat_busy_loop() -> None:
    """Work around a busy loop of kafka-python 3.0: with an overdue heartbeat it waits for 0 seconds, again and again. A
    broker that accepted connections and never answered cost 87 % of a core and half a second's pause for every stream.
    """
    from kafka.coordinator.consumer import ConsumerCoordinator

    original = ConsumerCoordinator.time_to_next_poll
    if not hasattr(original, "at_least"):

        def time_to_next_poll(self: ConsumerCoordinator) -> float:
            return max(time_to_next_poll.at_least, original(self))

        time_to_next_poll.at_least = 0.1
        ConsumerCoordinator.time_to_next_poll = time_to_next_poll
