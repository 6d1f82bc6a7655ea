"""Misbehaving clients against real workers: each gets a defined response, and others are not affected."""

import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

import pytest

from tests.support import measurements
from tests.support.background import BackgroundTask
from tests.support.http_session import HttpSession
from tests.support.process_fixtures import StreamOpener, wait_for_workers
from tests.support.stream_client import StreamClient
from tests.support.stream_load import StreamLoad, choose_stream_count
from tests.support.system import System, run_system, wait_for

pytestmark = [pytest.mark.service, pytest.mark.alike]

_LIMIT_SECONDS = 20
_MIB = 2**20


class Raw:
    """A connection that sends whatever bytes a test wants. `answer` is what has come until now."""

    def __init__(self, system: System, *, receive_bytes: int | None = None):
        self.sock = socket.socket()
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(_LIMIT_SECONDS)
        self.sock.connect(("127.0.0.1", system.port))
        self.answer = b""

    def ask(self, token: str, *lines: str, path: str = "/api/sse/connect", then: bytes = b"") -> "Raw":
        """Ask for a stream with these further header lines; `then` follows the request in the same packet."""
        head = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}", *lines]
        self.sock.sendall("\r\n".join([*head, "\r\n"]).encode() + then)
        return self

    def read_until(self, text: str) -> "Raw":
        while text.encode() not in self.answer:
            more = self.sock.recv(65536)
            assert more, f"the connection ended after {self.answer!r} without {text}"
            self.answer += more
        return self

    def read_to_the_end(self) -> bytes:
        """Everything until the server closes; a reset counts as an end."""
        try:
            while more := self.sock.recv(65536):
                self.answer += more
        except ConnectionResetError:
            pass
        return self.answer

    @property
    def status(self) -> int:
        return int(self.answer.split(b" ", 2)[1])

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def token(system: System) -> str:
    return system.get_token("bob")


@pytest.fixture
def witness(system: System, streams: StreamOpener, alice: HttpSession) -> Iterator[StreamClient]:
    """Charlie, who must not notice anything: he is served to the end, by one connection."""
    stream = streams.open(system, "charlie")
    yield stream
    stream.wait_for_message(alice.publish(f"Afterwards {secrets.token_hex(4)}"))
    assert len(stream.response_headers) == 1


# ---- bytes that nobody asked for, and bytes that nobody reads


@pytest.mark.parametrize("when", ["with the request", "later"])
def test_bytes_after_the_request_change_nothing(
    system: System, token: str, witness: StreamClient, alice: HttpSession, when: str
):
    """What a client sends on a stream is not read, be it garbage or a second request."""
    noise = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" + b"\0\xff" * 2000
    with closing(Raw(system)) as client:
        client.ask(token, then=noise if when == "with the request" else b"").read_until("event: CONNECTED")
        if when == "later":
            client.sock.sendall(noise * 10)
        sent = alice.publish(f"Despite the noise {secrets.token_hex(4)}")
        client.read_until(f'"id":{sent},')
        assert client.answer.count(b"HTTP/1.1 ") == 1


def test_client_that_never_stops_sending_is_not_read(system: System, token: str, witness: StreamClient):
    """Megabytes after the request fill buffers of the kernel, up to their limits, and no memory of the worker's."""
    with closing(Raw(system)) as client:
        client.ask(token).read_until("event: CONNECTED")
        client.sock.setblocking(False)
        sent = 0
        while True:
            try:
                sent += client.sock.send(b"x" * 65536)
            except BlockingIOError:
                break
            assert sent < 64 * _MIB, "the worker reads what nobody asked it to read"


def test_half_closed_client_gets_its_answer_and_then_the_end(system: System, token: str, witness: StreamClient):
    """`nc -N`: a client that has said all it has to say is gone for us; nothing hangs."""
    with closing(Raw(system)) as client:
        client.ask(token)
        client.sock.shutdown(socket.SHUT_WR)
        assert b"event: CONNECTED" in client.read_to_the_end()
    with closing(Raw(system)) as client:
        client.ask(token).read_until("event: CONNECTED")
        client.sock.shutdown(socket.SHUT_WR)
        client.read_to_the_end()


def test_half_a_request_and_then_silence_holds_up_nobody(system: System, witness: StreamClient, alice: HttpSession):
    halves = [Raw(system) for _ in range(100)]
    for half in halves:
        half.sock.sendall(b"GET /api/sse/connect HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthor")
    witness.wait_for_message(alice.publish(f"Beside halves {secrets.token_hex(4)}"))
    for half in halves:
        half.close()


def test_client_that_reads_a_byte_a_second_holds_up_nobody(
    system: System, streams: StreamOpener, token: str, witness: StreamClient, alice: HttpSession
):
    """It is behind, and nobody else is; what it has read is right."""
    quick = streams.open(system, "bob")
    with closing(Raw(system, receive_bytes=2048)) as client:
        client.ask(token).read_until("event: CONNECTED")
        while not client.answer.endswith(b"\n\n"):  # with so small a buffer the rest of the block may come later
            client.answer += client.sock.recv(1)
        client.answer = b""

        def read_a_byte(_: int) -> None:
            client.answer += client.sock.recv(1)

        with BackgroundTask(read_a_byte, interval_seconds=1) as reading:
            sent = [alice.publish(f"Slowly {n} {secrets.token_hex(4)}", content="y" * 2000) for n in range(30)]
            for stream in (quick, witness):
                stream.wait_for_message(sent[-1])
                assert stream.message_ids[-30:] == sent
            wait_for(lambda: len(reading.durations) >= 3, description="three bytes")
        assert client.answer.startswith((b"id:", b"eve"))


# ---- F24: heads and cursors of every wrong kind


def test_header_lines_of_ten_kilobytes_are_refused_by_name(system: System, token: str, witness: StreamClient):
    """Too long a line is a 4xx of gunicorn's, before the application sees it; many long ones, within its limits, are not."""
    for line in (
        f"X-Long: {'a' * 10_240}",
        f"Last-Event-ID: {'1' * 10_240}",
        f"{'N' * 10_240}: a",
        f"Cookie: {'c' * 70_000}",
    ):
        with closing(Raw(system)) as client:
            client.ask(token, line)
            client.read_to_the_end()
            assert client.status in (400, 431), line[:20]
    with closing(Raw(system)) as client:
        client.ask(token, *(f"X-{n}: {'a' * 4000}" for n in range(10))).read_until("event: CONNECTED")


_CURSORS = [
    "{epoch}-999999999", "{epoch}-9999999999999999999999", "{epoch}--1", "{epoch}-", "-1", "zzzz-1", "{epoch}-01", "garbage",
    "1", "0", "null", "{epoch}-1; DROP TABLE events", "{epoch}-1.", "\xe9\xff", "{epoch}-0x1", "{epoch}-1e3", "{epoch} -1",
    "%00", "{epoch}-1,{epoch}-2", "x" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("how", ["header", "query"])
def test_cursor_of_every_wrong_kind_is_answered_with_reset(system: System, token: str, witness: StreamClient, how: str):
    """F24: RESET and then CONNECTED on the stream, never an error and never silence."""
    epoch = witness.cursor.partition("-")[0]
    took = []
    for cursor in (cursor.format(epoch=epoch) for cursor in _CURSORS):
        began = time.monotonic()
        with closing(_with_cursor(system, token, how, cursor)) as client:
            client.read_until("event: CONNECTED")
            took.append(time.monotonic() - began)
            body = client.answer.partition(b"\r\n\r\n")[2]
            assert client.status == 200, cursor
            assert body.count(b"event: RESET") == 1, cursor
            assert body.count(b"event: ") == 2, cursor
    measurements.record_durations(f"wrong cursor by {how} → RESET and CONNECTED", took)


def test_empty_cursor_is_none_and_an_honest_one_is_an_exact_replay(
    system: System, streams: StreamOpener, token: str, alice: HttpSession
):
    """F24"""
    before = streams.open(system, "bob")
    sent = [alice.publish(f"Missed {n} {secrets.token_hex(4)}") for n in range(3)]
    for how in ("header", "query"):
        with closing(_with_cursor(system, token, how, before.frames_of("CONNECTED")[0].id)) as client:
            # a worker that has not heard of the last ones yet sends them after CONNECTED
            body = client.read_until(f'"id":{sent[-1]},').read_until("event: CONNECTED").answer
            assert [body.index(b'"id":%d,' % n) for n in sent] == sorted(body.index(b'"id":%d,' % n) for n in sent)
            assert body.count(b"event: MESSAGE\n") == 3
        with closing(_with_cursor(system, token, how, "")) as client:
            assert b"event: RESET" not in client.read_until("event: CONNECTED").answer


def _with_cursor(system: System, token: str, how: str, cursor: str) -> Raw:
    client = Raw(system)
    if how == "query":
        return client.ask(token, path=f"/api/sse/connect?after={quote(cursor)}")
    return client.ask(token, f"Last-Event-ID: {cursor}")


def test_cursor_of_ten_kilobytes_in_the_address_is_refused_by_name(system: System, token: str, witness: StreamClient):
    """F24: gunicorn ends such a request line with a 4xx; no cursor of ours is longer than 30 characters."""
    with closing(_with_cursor(system, token, "query", "x" * 10_240)) as client:
        client.read_to_the_end()
        assert client.status in (400, 414)


# ---- one name, many streams


def test_two_streams_with_one_label_are_two_streams(system: System, token: str, alice: HttpSession):
    """The server names them; closing one leaves the other."""
    path = "/api/sse/connect?connectionId=the-same"
    with closing(Raw(system)) as first, closing(Raw(system)) as second:
        names = [_connection_id(client.ask(token, path=path)) for client in (first, second)]
        assert len({*names, "the-same"}) == 3
        bob = HttpSession(system, token=token)
        assert bob.send("POST", "/api/sse/disconnect?connectionId=the-same").status == 204
        assert bob.send("POST", f"/api/sse/disconnect?connectionId={names[0]}").status == 204
        first.read_to_the_end()
        second.read_until(f'"id":{alice.publish(f"For the other {secrets.token_hex(4)}")},')


def _connection_id(client: Raw) -> str:
    return client.read_until('"cursor"').answer.partition(b'"connectionId":"')[2].partition(b'"')[0].decode()


@pytest.fixture
def strict_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """With the limits that people have who set none; only this machine's address may do more, as all clients are here."""
    settings = {"RATELIMIT_ENABLED": "1", "STREAMS_PER_USER": "8", "LIMIT_STREAM_PER_ADDRESS": "1000000/minute"}
    with run_system(tmp_path_factory.mktemp("strict"), **settings) as running:
        yield running


def test_ten_thousand_connects_of_one_person_are_refused_politely_and_nobody_else_is(
    strict_system: System, streams: StreamOpener
):
    """Bob's come with status 200 and a time to return; his first streams, Charlie's, and /healthz go on."""
    system = strict_system
    wait_for_workers(system)
    first, charlie = streams.open(system, "bob"), streams.open(system, "charlie")
    alice = HttpSession(system, token=system.get_token("alice", "admin"))
    health = HttpSession(system)
    many = choose_stream_count(10_000, reduced_count=2000)

    def ask(_: int) -> None:
        assert health.get("/healthz").status == 200

    with (
        BackgroundTask(ask, interval_seconds=0.05) as asking,
        StreamLoad(
            ("127.0.0.1", system.port),
            [system.get_token("bob")],
            many,
            cursor=first.cursor,
            should_reconnect=False,
            max_pending=200,
        ) as swarm,
    ):
        wait_for(lambda: len(asking.durations) > 5)
        during = alice.publish("During the rush")
        for stream in (first, charlie):
            stream.wait_for_message(during)
        swarm.wait_until_answered(seconds=150)
        accepted = swarm.connected_count
        another = streams.open(system, "charlie")
        last = alice.publish("After the rush")
        for stream in (first, charlie, another):
            stream.wait_for_message(last)
            assert len(stream.response_headers) == 1
    assert swarm.sum_counts("failures") == 0
    assert swarm.events["BUSY"] + swarm.events["CONNECTION_LIMIT_REACHED"] == many - accepted
    assert 0 < accepted < 2 * 8, "eight at each worker, one of them the first"
    measurements.record_durations(f"/healthz beside {many:,} connects of one person", asking.durations)
