"""Checks whether the brokers can be read, and if not, why: for /readyz, the doctor and the log.

kafka-python retries for ever and reports errors only in its log, so each connection is monitored here. The sentences
are public, as /readyz is: they have no address, no name, and no text of a library.
"""

from typing import TYPE_CHECKING, Any

import structlog

from broadcast.config.settings import Settings
from broadcast.ingest.kafka import client

if TYPE_CHECKING:
    from kafka import KafkaConsumer

_log = structlog.get_logger(__name__)
_SIGN_IN_ENDED = "The brokers end the sign-in without a word: see KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD."
_FOREIGN_SERVER = (
    "What answers at KAFKA_BOOTSTRAP_SERVERS is no Kafka broker, or expects another KAFKA_SECURITY_PROTOCOL than {}."
)
_NO_BROKER_ANSWERS = "No broker answers at KAFKA_BOOTSTRAP_SERVERS."


class BrokersUnavailable(Exception):
    """The brokers cannot be read, or do not have the topics. The message is a sentence for people."""


class ConnectionMonitor:
    """Monitors a consumer's connections. `failure_reason` says why the newest one failed, None while they succeed."""

    def __init__(self, consumer: "KafkaConsumer", settings: Settings):
        self._consumer, self._settings = consumer, settings
        self.failure_reason: str | None = None
        self._missing_topics: list[str] = []
        manager = consumer._manager
        connect = manager._connect

        async def connect_watched(node: Any, connection: Any, **options: Any) -> None:
            self._watch(connection, f"{node.host}:{node.port}")
            await connect(node, connection, **options)

        manager._connect = connect_watched
        for node_id, connection in list(manager._conns.items()):  # opened by the consumer's constructor
            self._watch(connection, node_id)
        for node_id, failure in list(manager._auth_failures.items()):
            self._note(_describe_failure(failure, settings), node_id, failure)

    def _watch(self, connection: Any, address: str) -> None:
        """Record the outcome of a connection. A refused login counts even if the broker then closes the connection."""
        authenticate, made, began = connection._sasl_authenticate, connection.connection_made, []

        async def authenticate_noted(*arguments: Any) -> None:
            began.append(True)
            try:
                await authenticate(*arguments)
            except Exception as problem:
                if sentence := _describe_failure(problem, self._settings):
                    self._note(sentence, address, problem)
                raise

        def made_and_read_to_its_end(transport: Any) -> None:
            _read_to_the_end(transport)
            made(transport)

        def failed(problem: Exception) -> None:
            protocol = self._settings.kafka_security_protocol
            guess = _SIGN_IN_ENDED if began else _FOREIGN_SERVER.format(protocol)
            self._note(_describe_failure(problem, self._settings) or self._prefer_known_reason(guess), address, problem)

        connection._sasl_authenticate, connection.connection_made = authenticate_noted, made_and_read_to_its_end
        connection.init_future.add_callback(self._note_success)
        connection.init_future.add_errback(failed)

    def fetch_partitions(self) -> dict[str, set[int]]:
        """The partitions of each topic, none for a missing one, in bounded time. Raises BrokersUnavailable."""
        from kafka.errors import (
            InvalidTopicError,
            KafkaError,
            TopicAuthorizationFailedError,
            UnknownTopicOrPartitionError,
        )

        manager, cluster = self._consumer._manager, self._consumer._cluster
        milliseconds = self._settings.kafka_request_timeout_ms
        try:
            manager.run(self._refresh_metadata, milliseconds)
        except (UnknownTopicOrPartitionError, TopicAuthorizationFailedError, InvalidTopicError):
            pass  # the only requested topic is missing
        except KafkaError as problem:
            _log.info("kafka.away", problem=f"{type(problem).__name__}: {problem}"[:300])
            raise BrokersUnavailable(self.failure_reason or _NO_BROKER_ANSWERS) from None
        partitions = {topic: cluster.partitions_for_topic(topic) or set() for topic in self._settings.kafka_topics}
        self._missing_topics = [topic for topic, numbers in partitions.items() if not numbers]
        return partitions

    def describe_missing_topics(self) -> str | None:
        """The topics that `fetch_partitions` did not find, as a sentence; None if it found all."""
        if not self._missing_topics:
            return None
        return (
            f"The brokers have no topic {', '.join(self._missing_topics)}, or do not show it to this system. "
            "It is never made by itself: create it, or mend KAFKA_TOPICS."
        )

    async def _refresh_metadata(self, milliseconds: int) -> None:
        """Refresh the topics' metadata, in kafka-python's own loop."""
        manager, cluster = self._consumer._manager, self._consumer._cluster
        for topic in self._settings.kafka_topics:
            cluster.add_topic(topic)
        if not manager.bootstrapped:
            await manager.wait_for(manager.bootstrap_async(milliseconds), milliseconds)
        await manager.wait_for(cluster.request_update(), milliseconds)

    def is_connected(self) -> bool:
        return bool(self._consumer.metrics()["consumer-metrics"]["connection-count"])

    def _prefer_known_reason(self, guess: str) -> str:
        """A broker closes the connection after a refused login, at times before it is read: the refusal wins."""
        return guess if self.failure_reason in (None, _NO_BROKER_ANSWERS) else self.failure_reason

    def _note_success(self, _connection: Any) -> None:
        self.failure_reason = None

    def _note(self, reason: str | None, address: str, problem: Exception) -> None:
        if reason != self.failure_reason:
            _log.warning("kafka.no_link", broker=address, problem=f"{type(problem).__name__}: {problem}"[:300])
        self.failure_reason = reason


def _read_to_the_end(transport: Any) -> None:
    """Read buffered data before a close: kafka-python drops it, and it often has the reason."""
    receive = transport._sock_recv

    def receive_before_the_end() -> tuple[bytes, Exception | None]:
        data, error = receive()
        return data, None if data else error  # the next read finds the close again

    transport._sock_recv = receive_before_the_end


def check_brokers(settings: Settings) -> str | None:
    """Log in and look for the topics, as the bridge does. Return a problem as a sentence, or None, in bounded time."""
    consumer = client.create_consumer(settings)
    try:
        monitor = ConnectionMonitor(consumer, settings)
        monitor.fetch_partitions()
        return monitor.describe_missing_topics()
    except BrokersUnavailable as error:
        return str(error)
    finally:
        client.close_consumer(consumer)


def _describe_failure(problem: Exception, settings: Settings) -> str | None:
    """None when the error says too little: something answered, but not as expected."""
    from kafka import errors

    text = str(problem).lower()
    match problem:
        case errors.SaslAuthenticationFailedError():
            return "The brokers refuse KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD."
        case errors.UnsupportedSaslMechanismError():
            return f"The brokers do not know KAFKA_SASL_MECHANISM {settings.kafka_sasl_mechanism}."
    if "certificate" in text or "hostname" in text:
        return (
            "A certificate is not trusted, the brokers' or this system's: see KAFKA_SSL_CAFILE and KAFKA_SSL_CERTFILE."
        )
    if "ssl" in text or "handshake" in text:
        return f"The brokers do not speak TLS as KAFKA_SECURITY_PROTOCOL {settings.kafka_security_protocol} says."
    words = ("refused", "unreachable", "dns", "timed out", "resolve")
    return _NO_BROKER_ANSWERS if isinstance(problem, OSError) or any(word in text for word in words) else None
