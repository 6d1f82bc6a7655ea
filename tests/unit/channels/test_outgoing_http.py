"""Requests to addresses that users have typed: which are refused, and what a hostile server can do."""

import datetime
import socket
import ssl
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broadcast.channels import outgoing_http
from broadcast.channels.outgoing_http import AddressRefused, ConnectionPool, RequestFailed, post
from broadcast.domain.outgoing_url import Target, parse_url
from tests.support.raw_server import receive_request, run_raw_server, send_bytes

OK = send_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\nhi")
INTERNAL_ADDRESSES = """
    127.0.0.1 127.8.8.8 0.0.0.0 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 100.100.100.200 192.0.0.1
    192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 192.88.99.1
    ::1 :: ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 ::7f00:1 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::1
    2002:7f00:1:: 2002:808:808:: 2001::1 2001:db8::1 fe80::1 fe80::1%1 fec0::1 fc00::1 fd00:ec2::254 ff02::1 ff0e::1
    100::1 4000::1 5f00::1 1::1
"""
PUBLIC_ADDRESSES = "1.1.1.1 8.8.8.8 93.184.216.34 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808"


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Every host has these addresses. Returns the list of the hosts that were looked up."""
    looked_up = []

    def getaddrinfo(host, port, *_, **__):
        looked_up.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(outgoing_http.socket, "getaddrinfo", getaddrinfo)
    return looked_up


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every connection is refused; the list has where they would have gone."""
    tried = []

    def refuse(address, **_):
        tried.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(outgoing_http.socket, "create_connection", refuse)
    return tried


@pytest.mark.parametrize("address", INTERNAL_ADDRESSES.split())
def test_host_with_an_internal_address_is_refused(monkeypatch, no_connection, address):
    for addresses in ([address], ["8.8.8.8", address]):
        resolve_to(monkeypatch, *addresses)
        with pytest.raises(AddressRefused, match="internal network"):
            post("https://receiver.example/hook", body=b"", headers={})
    assert no_connection == []


@pytest.mark.parametrize("address", PUBLIC_ADDRESSES.split())
def test_public_address_is_allowed(address):
    assert outgoing_http.is_public(ip_address(address))


@pytest.mark.parametrize(
    "host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "localhost.", "0", "[::1]", "①27.0.0.1"]
)
def test_other_spellings_of_this_machine_are_refused(no_connection, host):
    with pytest.raises((AddressRefused, RequestFailed)):
        post(f"https://{host}/", body=b"", headers={})
    assert no_connection == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://receiver.example/", "https"),
        ("ftp://receiver.example/", "https"),
        ("file:///etc/passwd", "https"),
        ("//receiver.example/", "https"),
        ("receiver.example", "https"),
        ("", "https"),
        ("https:///path", "no host"),
        ("https://", "no host"),
        ("https://.", "no host"),
        ("https://user:password@receiver.example/", "user name"),
        ("https://receiver.example@127.0.0.1/", "user name"),
        ("https://@receiver.example/", "user name"),
        ("https://receiver.example:22/", "Port 22"),
        ("https://receiver.example:0/", "Port 0"),
        ("https://receiver.example:25/", "Port 25"),
        ("https://receiver.example:99999/", "not valid"),
        ("https://receiver.example:x/", "not valid"),
        ("https://[::1/", "not valid"),
        (f"https://{'a' * 64}.example/", "not valid"),
        ("https://a..b/", "not valid"),
        ("https://receiver.example/\r\nX: y", "space"),
        ("https://receiver.example/a b", "space"),
        ("https://receiver.example\\@evil.example/", "space"),
        ("https://receiver.example/\x00", "space"),
        ("https://receiver.example/" + "a" * 2000, "longer"),
    ],
)
def test_url_that_is_no_https_address_is_refused(url, reason):
    with pytest.raises(AddressRefused, match=reason):
        parse_url(url)


def test_url_is_requested_in_ascii():
    assert parse_url("https://bücher.example/ä%20b?q=ü#f") == Target(
        "https", "xn--bcher-kva.example", 443, "/%C3%A4%20b?q=%C3%BC"
    )
    assert parse_url("https://Receiver.Example:8443") == Target("https", "receiver.example", 8443, "/")
    assert parse_url("http://receiver.example", may_be_private=True).port == 80


def test_host_is_looked_up_once_and_the_checked_address_is_connected(monkeypatch, no_connection):
    looked_up = resolve_to(monkeypatch, "8.8.8.8", "8.8.4.4")
    with pytest.raises(RequestFailed, match="Connection refused"):
        post("https://receiver.example/", body=b"", headers={})
    assert (looked_up, no_connection) == (["receiver.example"], [("8.8.8.8", 443), ("8.8.4.4", 443)])


def test_unknown_host_may_work_later(monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(outgoing_http.socket, "getaddrinfo", fail)
    with pytest.raises(RequestFailed, match="cannot be found: Name or service not known"):
        post("https://receiver.example/", body=b"", headers={})


def post_locally(port: int, **options) -> outgoing_http.Response:
    url = f"http://127.0.0.1:{port}/hook?a=1"
    return post(url, body=b"{}", headers={"X-One": "1"}, may_be_private=True, **options)


def test_request_and_answer():
    with run_raw_server(OK) as (port, requests):
        assert post_locally(port)[:1] == (200,)
        answer = post_locally(port)
    assert (answer.body, answer.headers["retry-after"]) == (b"hi", "7")
    lines = requests[0].decode().split("\r\n")
    assert lines[0] == "POST /hook?a=1 HTTP/1.1"
    assert {f"Host: 127.0.0.1:{port}", "X-One: 1", "Content-Length: 2", "Connection: close"} <= set(lines)


def answer_twice(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1\n")
    if receive_request(client):
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n2\n")


def test_requests_of_a_pool_share_a_connection_until_the_server_closes_it():
    pool = ConnectionPool()
    with run_raw_server(answer_twice) as (port, requests):
        bodies = [post_locally(port, pool=pool).body for _ in range(3)]
    assert bodies == [b"1\n", b"2\n", b"1\n"]
    assert len(requests) == 2  # of each connection the first is noted
    assert b"Connection:" not in requests[0]


@pytest.mark.parametrize("head", [b"Connection: close\r\nContent-Length: 2", b"Content-Length: 3", b"X: y"])
def test_connection_whose_answer_does_not_end_by_its_length_is_not_used_again(head):
    pool = ConnectionPool()
    with run_raw_server(send_bytes(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\nhi")) as (port, _):
        post_locally(port, pool=pool)
        assert pool.take(parse_url(f"http://127.0.0.1:{port}", may_be_private=True)) is None


def test_redirect_is_returned_and_not_followed():
    with run_raw_server(OK) as (other, other_requests):
        redirect = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{other}/\r\nContent-Length: 0\r\n\r\n"
        with run_raw_server(send_bytes(redirect.encode())) as (port, _):
            assert post_locally(port).status == 302
        assert other_requests == []


def drip(client: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000:
        client.sendall(bytes([byte]))
        time.sleep(0.05)


def hang(client: socket.socket) -> None:
    while client.recv(100):  # until the other side closes
        pass


def drip_the_body(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        client.sendall(b"1\r\nx\r\n")
        time.sleep(0.05)


@pytest.mark.parametrize("answer", [drip, hang, drip_the_body])
def test_slow_server_is_left_when_the_time_is_up(answer):
    with run_raw_server(answer) as (port, _), pytest.raises(RequestFailed, match=r"within 0\.5 seconds"):
        post_locally(port, timeout_seconds=0.5)


def flood(client: socket.socket) -> None:
    while True:
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


@pytest.mark.parametrize(
    "answer", [flood, send_bytes(b"SSH-2.0-OpenSSH\r\n"), send_bytes(b""), send_bytes(b"HTTP/1.1 200 OK\r\n" * 9999)]
)
def test_what_is_not_http_fails_with_a_sentence(answer):
    with run_raw_server(answer) as (port, _), pytest.raises(RequestFailed, match=r"127\.0\.0\.1 .*\.$"):
        post_locally(port, timeout_seconds=30)


@pytest.mark.parametrize(
    "head", [b"\r\n", b"Content-Length: 9999999\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5f5e100\r\n"]
)
def test_long_answer_is_cut(head):
    with run_raw_server(send_bytes(b"HTTP/1.1 200 OK\r\n" + head + b"x" * 2**20)) as (port, _):
        answer = post_locally(port)
    assert 60_000 < len(answer.body) < 65536


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context for receiver.test, whose certificate requests trust."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now, host = datetime.datetime.now(datetime.UTC), x509.SubjectAlternativeName([x509.DNSName("receiver.test")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    signed = builder.add_extension(host, critical=True).sign(key, hashes.SHA256())
    path = tmp_path / "receiver.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    trusting = outgoing_http.ssl.create_default_context(cafile=path)
    monkeypatch.setattr(outgoing_http, "_make_tls_context", lambda: trusting)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server


def test_certificate_is_checked_against_the_host_name(certificate, monkeypatch):
    resolve_to(monkeypatch, "127.0.0.1")
    with run_raw_server(OK, tls=certificate) as (port, requests):
        answer = post(f"https://receiver.test:{port}/", body=b"", headers={}, may_be_private=True)
        assert answer.status == 200
        with pytest.raises(RequestFailed, match=r"certificate of other\.test is not valid: Hostname mismatch"):
            post(f"https://other.test:{port}/", body=b"secret", headers={}, may_be_private=True)
        assert not any(b"secret" in request for request in requests)


def test_certificate_of_an_unknown_issuer_is_refused(certificate, monkeypatch):
    resolve_to(monkeypatch, "127.0.0.1")
    monkeypatch.setattr(outgoing_http, "_make_tls_context", outgoing_http.ssl.create_default_context)
    with run_raw_server(OK, tls=certificate) as (port, _), pytest.raises(RequestFailed, match="self-signed"):
        post(f"https://receiver.test:{port}/", body=b"", headers={}, may_be_private=True)
