"""Broker failures are reported correctly and in bounded time: by the doctor, every worker's /readyz, and at startup."""

import itertools
import math
import socket
import socketserver
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from gevent.event import Event as Bell

from broadcast.config.settings import SETTINGS, Settings, SettingsError
from broadcast.ingest.kafka import broker_check, client
from broadcast.ingest.kafka.bridge import KafkaBridge, _ConsumerSession
from broadcast.observability import metrics
from tests.support.background import serve_in_thread
from tests.support.ports import find_free_port

pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")  # kafka-python's


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that treats each connection so. Its threads end with the block."""
    links: list[socket.socket] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            links.append(self.request)
            with suppress(OSError, struct.error):
                answer(self.request)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    with serve_in_thread(server):
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            for link in links:
                with suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)  # wakes its thread, which the server waits for


def a_web_server(link: socket.socket) -> None:
    link.recv(4096)
    link.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    link.close()


def one_that_hangs_up(link: socket.socket) -> None:
    link.close()


def one_that_says_nothing(link: socket.socket) -> None:
    while link.recv(4096):
        pass


def a_broker(
    *, password: bytes = b"right", topics: tuple[str, ...] = (), refuses: str = "and stays"
) -> Callable[[socket.socket], None]:
    """Knows as much of Kafka's protocol as signing in and looking for topics needs.

    `refuses`: what it does after a wrong password: "and stays", "and hangs up" in the same moment, "by hanging up".
    """

    def text(value: str) -> bytes:
        return struct.pack(">h", len(value)) + value.encode()

    def serve(link: socket.socket) -> None:
        port = link.getsockname()[1]
        while head := link.recv(4, socket.MSG_WAITALL):
            request = link.recv(struct.unpack(">i", head)[0], socket.MSG_WAITALL)
            key, version, correlation = struct.unpack_from(">hhi", request)
            match key:
                case 18:  # ApiVersions
                    keys = [(0, 0, 7), (1, 0, 11), (3, 0, 8), (10, 0, 2), (17, 0, 1), (18, 0, 2), (36, 0, 1)]
                    body = struct.pack(">hi", 0, len(keys)) + b"".join(struct.pack(">hhh", *one) for one in keys)
                    body += struct.pack(">i", 0) if version else b""
                case 17:  # SaslHandshake
                    body = struct.pack(">hi", 0, 1) + text("PLAIN")
                case 36:  # SaslAuthenticate
                    is_right = request.endswith(b"\0" + password)
                    if not is_right and refuses == "by hanging up":
                        return link.close()
                    body = (
                        struct.pack(">h", 0 if is_right else 58)
                        + text("" if is_right else "no")
                        + struct.pack(">iq", 0, 0)
                    )
                case 3:  # Metadata
                    asked = request[request.index(b"test.") :] if b"test." in request else b""
                    name = asked.split(b"\0")[0].split(b"\x01")[0].decode()
                    partition = struct.pack(">hiiiiiiii", 0, 0, 1, 0, 1, 1, 1, 1, 0)
                    told = struct.pack(">h", 0 if name in topics else 3) + text(name) + b"\0"
                    told += struct.pack(">i", 1) + partition if name in topics else struct.pack(">i", 0)
                    body = (
                        struct.pack(">ii", 0, 1)
                        + struct.pack(">i", 1)
                        + text("127.0.0.1")
                        + struct.pack(">ih", port, -1)
                    )
                    body += struct.pack(">hi", -1, 1) + (struct.pack(">i", 1) + told + struct.pack(">i", 0) if name else
                                                         struct.pack(">i", 0))  # fmt: skip
                    body += struct.pack(">i", 0)
                case _:
                    return None
            link.sendall(struct.pack(">ii", len(body) + 4, correlation) + body)
            if key == 36 and not is_right and refuses == "and hangs up":
                return link.close()
        return None

    return serve


def settings_for(address: str, **changes) -> Settings:
    given = {"kafka_bootstrap_servers": [address], "kafka_topics": ["test.events"], "kafka_request_timeout_ms": 1000}
    return Settings(**given | changes)


SASL = {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_username": "u", "kafka_sasl_password": "wrong"}


def test_port_that_nobody_listens_on():
    assert (
        broker_check.check_brokers(settings_for(f"127.0.0.1:{find_free_port()}"))
        == "No broker answers at KAFKA_BOOTSTRAP_SERVERS."
    )


@pytest.mark.parametrize("what", [a_web_server, one_that_hangs_up])
def test_port_that_is_no_broker(what):
    with answering(what) as address:
        told = broker_check.check_brokers(settings_for(address))
    assert told.startswith("What answers at KAFKA_BOOTSTRAP_SERVERS is no Kafka broker")


def test_port_that_says_nothing():
    with answering(one_that_says_nothing) as address:
        assert "KAFKA_BOOTSTRAP_SERVERS" in broker_check.check_brokers(settings_for(address))


def test_wrong_password_is_the_reason_and_not_a_broker_that_is_away():
    with answering(a_broker()) as address:
        told = broker_check.check_brokers(settings_for(address, **SASL))
    assert told == "The brokers refuse KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD."
    assert "wrong" not in told


def test_refusal_is_the_reason_though_the_broker_hangs_up_in_the_same_moment():
    with answering(a_broker(refuses="and hangs up")) as address:
        told = broker_check.check_brokers(settings_for(address, **SASL))
    assert told == "The brokers refuse KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD."


def test_broker_that_hangs_up_at_a_sign_in_is_still_a_broker():
    with answering(a_broker(refuses="by hanging up")) as address:
        told = broker_check.check_brokers(settings_for(address, **SASL))
    assert told == "The brokers end the sign-in without a word: see KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD."


def test_connection_that_is_closed_after_a_refusal_does_not_take_the_reason_away():
    """As Apache Kafka does to whoever tries again: the connection is closed before it is said why."""
    turns = itertools.count()

    def refuse(link: socket.socket) -> None:
        (a_broker() if next(turns) == 0 else one_that_hangs_up)(link)

    with answering(refuse) as address:
        told = broker_check.check_brokers(settings_for(address, **SASL))
    assert next(turns) > 2
    assert told == "The brokers refuse KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD."


def test_broker_without_tls():
    with answering(a_web_server) as address:
        told = broker_check.check_brokers(settings_for(address, kafka_security_protocol="SSL"))
    assert told == "The brokers do not speak TLS as KAFKA_SECURITY_PROTOCOL SSL says."


def test_worker_that_does_not_read_tells_the_same_reason_until_it_is_over(app, client):
    """A connection alone is no proof: a sign-in that is refused begins with one."""
    client()
    with answering(a_broker()) as address:
        lease = NeverElected()
        lease.bridge = bridge = KafkaBridge(app, settings_for(address, **SASL), lease)
        bridge.run()
    assert bridge.problem == "The brokers refuse KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD."


def test_nothing_is_said_to_be_well_before_the_brokers_were_reached(app):
    """To sign in is tried for as long as a request may take; until then it is not known what is wrong."""
    assert (
        KafkaBridge(app, settings_for("127.0.0.1:1"), NeverElected()).problem
        == "The brokers have not been reached yet."
    )


class NeverElected:
    """A lease that another worker has; its bridge is stopped once it has been asked for the second time."""

    bridge: KafkaBridge | None = None
    asked = 0

    def try_acquire(self) -> bool:
        self.asked += 1
        if self.asked == 2:
            self.bridge.stop()
        return False

    def release(self) -> None:
        pass


def test_reading_a_topic_never_asks_for_it_to_be_made():
    for opened in (
        client.create_consumer(settings_for("127.0.0.1:1")),
        client.create_producer(settings_for("127.0.0.1:1")),
    ):
        cluster = getattr(opened, "_cluster", None) or opened._metadata
        try:
            assert cluster.metadata_request().allow_auto_topic_creation is False
        finally:
            opened.close(**({"timeout_ms": 100} if hasattr(opened, "poll") else {"timeout": 0.1}))


def test_lag_is_unknown_and_not_0_when_nobody_reads(in_app):
    reading = _ConsumerSession(in_app, SETTINGS.of(in_app), Nobody(), stop_event=Bell(), is_sole_reader=True)
    metrics.kafka_lag.labels("test.lag", 0).set(7)
    reading._lag_labels.add(("test.lag", 0))
    reading.close()
    [value] = [
        sample.value
        for family in metrics.kafka_lag.collect()
        for sample in family.samples
        if sample.labels["topic"] == "test.lag"
    ]
    assert math.isnan(value)


class Nobody:
    """A consumer of no brokers."""

    def close(self, **options: object) -> None:
        pass


def test_certificates_are_looked_for_at_start(tmp_path):
    tls = {"KAFKA_BOOTSTRAP_SERVERS": "h:9093", "KAFKA_SECURITY_PROTOCOL": "SSL"}
    with pytest.raises(SettingsError, match="KAFKA_SSL_CAFILE: .*nowhere.pem cannot be read: No such file"):
        Settings.load(tls | {"KAFKA_SSL_CAFILE": str(tmp_path / "nowhere.pem")})
    wrong = tmp_path / "ca.pem"
    wrong.write_text("no certificate")
    with pytest.raises(SettingsError, match="KAFKA_SSL_CAFILE: .*ca.pem cannot be read: it is no PEM file"):
        Settings.load(tls | {"KAFKA_SSL_CAFILE": str(wrong)})
    with pytest.raises(SettingsError, match="KAFKA_SSL_CERTFILE, KAFKA_SSL_KEYFILE: .*cannot be read"):
        Settings.load(tls | {"KAFKA_SSL_CERTFILE": str(wrong), "KAFKA_SSL_KEYFILE": str(wrong)})
    with pytest.raises(SettingsError, match="a key also needs KAFKA_SSL_CERTFILE"):
        Settings.load(tls | {"KAFKA_SSL_KEYFILE": str(wrong)})
    Settings.load({"KAFKA_BOOTSTRAP_SERVERS": "h:9092", "KAFKA_SSL_CAFILE": str(tmp_path / "nowhere.pem")})


def test_topic_that_does_not_exist_is_told_with_its_name_and_one_that_does_is_well():
    with answering(a_broker(topics=("test.events",))) as address:
        assert broker_check.check_brokers(settings_for(address)) is None
        assert broker_check.check_brokers(settings_for(address, **SASL | {"kafka_sasl_password": "right"})) is None
    with answering(a_broker()) as address:
        told = broker_check.check_brokers(settings_for(address))
    assert told.startswith("The brokers have no topic test.events, or do not show it to this system.")
