"""Which first bytes of a connection are taken for a request for a stream: only what every parser reads in one way."""

import pytest

from broadcast.web.streams.request_head import RequestHead, parse_request_head

_LINES = ["GET /inbox/stream?after=a-1 HTTP/1.1", "Host: news.example", "Authorization: Bearer x", "Accept: */*"]


def build(*lines: str, after: bytes = b"", end: str = "\r\n\r\n") -> bytes:
    return "\r\n".join(lines).encode("latin-1") + end.encode() + after


WHOLE = build(*_LINES)
FIRST, *FIELDS = _LINES


@pytest.mark.parametrize("path", ["/inbox/stream", "/api/sse/connect"])
def test_whole_request_is_taken(path):
    data = build(f"GET {path}?label=a%20b&after= HTTP/1.1", *FIELDS, "X-Empty:", "COOKIE:  a=b; c=d ")
    headers = {
        "host": "news.example",
        "authorization": "Bearer x",
        "accept": "*/*",
        "x-empty": "",
        "cookie": "a=b; c=d",
    }
    assert parse_request_head(data) == RequestHead(path, "label=a%20b&after=", headers)


def test_request_cut_after_any_byte_is_left():
    assert parse_request_head(WHOLE)
    assert [cut for cut in range(len(WHOLE)) if parse_request_head(WHOLE[:cut])] == []


@pytest.mark.parametrize(
    "first",
    [
        "POST /inbox/stream HTTP/1.1",
        "HEAD /inbox/stream HTTP/1.1",
        "get /inbox/stream HTTP/1.1",
        "GET  /inbox/stream HTTP/1.1",
        "GET /inbox/stream  HTTP/1.1",
        "GET\t/inbox/stream HTTP/1.1",
        " GET /inbox/stream HTTP/1.1",
        "GET /inbox/stream HTTP/1.0",
        "GET /inbox/stream HTTP/1.2",
        "GET /inbox/stream HTTP/2.0",
        "GET /inbox/stream http/1.1",
        "GET /inbox/stream",
        "GET /inbox/stream/ HTTP/1.1",
        "GET /inbox/streams HTTP/1.1",
        "GET /inbox//stream HTTP/1.1",
        "GET /inbox/%73tream HTTP/1.1",
        "GET /inbox/stream%3Fafter=1 HTTP/1.1",
        "GET /inbox/stream;x HTTP/1.1",
        "GET /inbox/stream#x HTTP/1.1",
        "GET /inbox/stream?a#x HTTP/1.1",
        "GET /./inbox/stream HTTP/1.1",
        "GET http://news.example/inbox/stream HTTP/1.1",
        "GET //news.example/inbox/stream HTTP/1.1",
        "GET *  HTTP/1.1",
        "GET /inbox/stream?\xe9 HTTP/1.1",
        "GET /inbox/stream?a b HTTP/1.1",
        "GET /inbox/stream?\x00 HTTP/1.1",
        "GET /inbox HTTP/1.1",
    ],
)
def test_other_request_lines_are_left(first):
    assert parse_request_head(build(first, *FIELDS)) is None


@pytest.mark.parametrize(
    "fields",
    [
        ["Host: news.example", "Content-Length: 0"],
        ["Host: news.example", "Content-Length: 5"],
        ["Host: news.example", "Transfer-Encoding: chunked"],
        ["Host: news.example", "Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Host: news.example", "Transfer-Encoding: identity"],
        ["Host: news.example", "Expect: 100-continue"],
        ["Host: news.example", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA"],
        ["Host: news.example", "Upgrade: websocket"],
        ["Host: news.example", "Authorization: Bearer x", "Authorization: Bearer y"],
        ["Host: news.example", "Authorization: Bearer x", "authorization: Bearer y"],
        ["Host: news.example", "Cookie: a=b", "Cookie: a=c"],
        ["Host: news.example", "X-Forwarded-For: 10.0.0.1", "X-Forwarded-For: 10.0.0.2"],
        ["Host: news.example", "Host: evil.example"],
        ["Authorization: Bearer x"],
        ["Host:"],
        ["Host: news.example/evil"],
        ["Host: news.example@evil.example"],
        ["Host: news.example, evil.example"],
        ["Host: news.example:99999999"],
        ["Host: n\xe9ws.example"],
        ["Host : news.example"],
        [" Host: news.example"],
        ["Host: news.example", " folded: yes"],
        ["Host: news.example", "X: a", "\tb"],
        ["Host: news.example", "X: a\x00b"],
        ["Host: news.example", "X: a\rb"],
        ["Host: news.example", "X: a\nAuthorization: Bearer y"],
        ["Host: news.example", "X\x01: a"],
        ["Host: news.example", ": a"],
        ["Host: news.example", "no colon"],
        ["Host: news.example", "X: \xff"],
        ["Host: news.example", *(f"X-{n}: y" for n in range(100))],
    ],
)
def test_odd_headers_are_left(fields):
    assert parse_request_head(build(FIRST, *fields)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n" + WHOLE,
        WHOLE + b"x",
        WHOLE + WHOLE,
        WHOLE + b"\r\n",
        WHOLE + b"GET /inbox HTTP/1.1\r\n\r\n",
        build(*_LINES, end="\n\n"),
        WHOLE.replace(b"\r\n", b"\n"),
        WHOLE.replace(b"\r\n", b"\r"),
        b"\x16\x03\x01\x02\x00\x01\x00",  # a TLS handshake
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + WHOLE,
    ],
)
def test_anything_but_one_request_is_left(data):
    assert parse_request_head(data) is None


def test_cookie_of_four_kilobytes_is_read_whole():
    head = parse_request_head(build(FIRST, *FIELDS, f"Cookie: broadcast={'x' * 4000}"))
    assert head is not None
    assert len(head.headers["cookie"]) == 4010
