"""Settings of the Kafka bridge and its connection to the brokers. Part of `config.settings.Settings`."""

import re
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from broadcast.config.validation import CommaSeparated

_HOST_AND_PORT = re.compile(r"[^\s,/]+:\d{1,5}")
_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,245}")  # leaves room for ".dlt"


class KafkaSettings(BaseModel):
    """Fields, and checks of their values and combinations."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    kafka_bootstrap_servers: CommaSeparated = []
    """`host:port` of Kafka brokers, comma-separated; empty leaves the bridge off."""
    kafka_topics: CommaSeparated = ["broadcast.events.v1"]
    """Topics that events are read from, comma-separated."""
    kafka_group_id: str | None = Field(None, min_length=1, max_length=200)
    """Consumer group under which the brokers keep offsets; by default one generated for this database."""
    kafka_bridge: Literal["elected", "every-worker"] = "elected"
    """`elected`: one worker of all reads every partition. `every-worker`: the brokers spread partitions over all."""
    kafka_dlt: bool = False
    """Write dead letters to the topic `<topic>.dlt` as well."""
    kafka_auto_offset_reset: Literal["earliest", "latest"] = "earliest"
    """Where a group without offsets starts; also where it continues when its offsets have expired."""
    kafka_max_poll_records: int = Field(500, ge=1, le=500)
    """Most events in one transaction; also the most that are read again after a crash."""
    kafka_api_version: str = Field("2.3", pattern=r"^\d+(\.\d+)+$")
    """Version of the Kafka protocol; 2.3 works with Kafka 2.3 to 4."""
    kafka_session_timeout_ms: int = Field(10000, ge=1000, le=300000)
    """With `every-worker`: how long the brokers wait for a dead worker."""
    kafka_request_timeout_ms: int = Field(10000, ge=1000, le=300000)
    """How long one request to a broker may take."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Protocol of the connection to the brokers."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """SASL mechanism used to sign in to the brokers."""
    kafka_sasl_username: str | None = None
    """Username to sign in to brokers with."""
    kafka_sasl_password: str | None = Field(None, repr=False)
    """Password to sign in to brokers with."""
    kafka_ssl_cafile: Path | None = None
    """CA certificates to verify the brokers with (PEM)."""
    kafka_ssl_certfile: Path | None = None
    """Client certificate of this system (PEM)."""
    kafka_ssl_keyfile: Path | None = None
    """Private key of the client certificate (PEM)."""
    kafka_ssl_check_hostname: bool = True
    """0 accepts a broker's certificate for another host."""

    def check_kafka(self) -> Iterator[str]:
        """One sentence per value or combination that cannot work."""
        if invalid := [server for server in self.kafka_bootstrap_servers if not _HOST_AND_PORT.fullmatch(server)]:
            yield f"KAFKA_BOOTSTRAP_SERVERS: {invalid[0]!r} is not host:port."
        if invalid := [topic for topic in self.kafka_topics if not _TOPIC_NAME.fullmatch(topic)]:
            yield f"KAFKA_TOPICS: {invalid[0]!r} cannot be a topic."
        if not self.kafka_topics:
            yield "KAFKA_TOPICS: name at least one topic."
        if self.kafka_security_protocol.startswith("SASL") and not (
            self.kafka_sasl_username and self.kafka_sasl_password
        ):
            yield "KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD: both are needed with a SASL protocol."
        yield from self._check_kafka_certificates()

    def _check_kafka_certificates(self) -> Iterator[str]:
        """Checked at start: otherwise a missing file fails only with each connection."""
        if not self.kafka_bootstrap_servers or not self.kafka_security_protocol.endswith("SSL"):
            return
        context = ssl.create_default_context()
        if self.kafka_ssl_cafile:
            yield from _check_file("KAFKA_SSL_CAFILE", self.kafka_ssl_cafile, context.load_verify_locations)
        if self.kafka_ssl_keyfile and not self.kafka_ssl_certfile:
            yield "KAFKA_SSL_KEYFILE: a key also needs KAFKA_SSL_CERTFILE."
        if self.kafka_ssl_certfile:
            load = partial(context.load_cert_chain, keyfile=self.kafka_ssl_keyfile, password="")
            yield from _check_file("KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE", self.kafka_ssl_certfile, load)


def _check_file(names: str, path: Path, load: Callable[[Path], None]) -> Iterator[str]:
    """A sentence if `load` cannot read the file."""
    try:
        load(path)
    except ssl.SSLError:
        yield f"{names}: {path} cannot be read: it is no PEM file, or certificate and key do not belong together."
    except OSError as problem:
        yield f"{names}: {path} cannot be read: {problem.strerror}."
