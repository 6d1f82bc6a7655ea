"""A request for a stream, whole in one packet or in pieces, gets the same answer from real workers.

A whole one opens before WSGI, one in pieces through gunicorn's parser and Flask. Hostile and smuggled requests too.
"""

import re
import socket
from contextlib import closing, suppress

import pytest

from tests.support.system import System

pytestmark = [pytest.mark.service, pytest.mark.alike]

_TIMEOUT_SECONDS = 30
_STREAM = "GET /api/sse/connect HTTP/1.1"
_VOLATILE_HEADERS = {"content-length", "date", "server", "connection", "x-request-id", "x-worker", "transfer-encoding"}

REQUESTS: dict[str, list[str]] = {
    "valid": [_STREAM, "{token}"],
    "HTML": ["GET /inbox/stream HTTP/1.1", "{token}"],
    "query": ["GET /api/sse/connect?connectionId=%C3%A9&after=x HTTP/1.1", "{token}"],
    "8 KiB of headers": [_STREAM, "{token}", f"X-Long: {'x' * 7800}"],
    "more than 8 KiB of headers": [_STREAM, "{token}", *(f"X-{n}: {'x' * 1000}" for n in range(9))],
    "cookie of 4 KiB": [_STREAM, "{token}", f"Cookie: a={'x' * 4000}"],
    "unknown token": [_STREAM, "Authorization: Bearer x"],
    "no token": [_STREAM],
    "no token, HTML": ["GET /inbox/stream HTTP/1.1"],
    "two tokens": [_STREAM, "{token}", "Authorization: Bearer x"],
    "other site": [_STREAM, "{token}", "Sec-Fetch-Site: cross-site"],
    "body": [_STREAM, "{token}", "Content-Length: 5"],
    "empty body": [_STREAM, "{token}", "Content-Length: 0"],
    "chunked body": [_STREAM, "{token}", "Transfer-Encoding: chunked"],
    "both lengths": [_STREAM, "{token}", "Content-Length: 5", "Transfer-Encoding: chunked"],
    "two lengths": [_STREAM, "{token}", "Content-Length: 5", "Content-Length: 6"],
    "absolute form": ["GET http://127.0.0.1/api/sse/connect HTTP/1.1", "{token}"],
    "encoded path": ["GET /api/sse/%63onnect HTTP/1.1", "{token}"],
    "fragment": ["GET /api/sse/connect#x HTTP/1.1", "{token}"],
    "slash": ["GET /api/sse/connect/ HTTP/1.1", "{token}"],
    "dots": ["GET /api/../api/sse/connect HTTP/1.1", "{token}"],
    "HEAD": ["HEAD /api/sse/connect HTTP/1.1", "{token}"],
    "POST": ["POST /api/sse/connect HTTP/1.1", "{token}", "Content-Length: 0"],
    "HTTP/1.0": ["GET /api/sse/connect HTTP/1.0", "{token}"],
    "HTTP/3.0": ["GET /api/sse/connect HTTP/3.0", "{token}"],
    "two spaces": ["GET  /api/sse/connect HTTP/1.1", "{token}"],
    "folded header": [_STREAM, "{token}", " folded"],
    "space before the colon": [_STREAM, "{token}", "X-A : b"],
    "control character": [_STREAM, "{token}", "X-A: a\x00b"],
    "bare line feed": [_STREAM, "{token}", "X-A: a\nX-B: b"],
    "bare carriage return": [_STREAM, "{token}", "X-A: a\rb"],
    "underscores": [_STREAM, "{token}", "X_Forwarded_For: 6.6.6.6", "SCRIPT_NAME: /x"],
    "200 headers": [_STREAM, "{token}", *(f"X-{n}: y" for n in range(200))],
    "upgrade": [_STREAM, "{token}", "Connection: Upgrade", "Upgrade: websocket"],
    "expect": [_STREAM, "{token}", "Expect: 100-continue"],
    "expect nonsense": [_STREAM, "{token}", "Expect: nonsense"],
}


def exchange(system: System, request: bytes, *, cut_at: int = 0) -> tuple[str, list[tuple[str, str]], list[str]]:
    """Send `request`, with `cut_at` in two pieces; return status line, headers and the events up to CONNECTED."""
    with closing(socket.create_connection(("127.0.0.1", system.port), timeout=_TIMEOUT_SECONDS)) as sock:
        if cut_at:
            sock.sendall(request[:cut_at])
            system.find_answering_workers()  # meanwhile the worker of this connection looks at it
        with suppress(ConnectionError, BrokenPipeError):
            sock.sendall(request[cut_at:])
        received = b""
        with suppress(ConnectionError):
            while b"CONNECTED" not in received and (more := sock.recv(65536)):
                received += more
                if _is_complete(received, has_body=not request.startswith(b"HEAD")):
                    break
    head, _, body = received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").decode("latin-1").partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = sorted((name.lower(), value) for name, _, value in (line.partition(": ") for line in lines))
    kept = [(name, value) for name, value in headers if name not in _VOLATILE_HEADERS]
    return first, kept, re.findall(r"^event: (\w+)$", body, re.MULTILINE)


def _is_complete(received: bytes, *, has_body: bool) -> bool:
    """Whether an answer with a known length, or without a body, is there."""
    head, end, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    return bool(end) and (not has_body or (length is not None and len(body) >= int(length[1])))


@pytest.mark.parametrize("name", REQUESTS)
def test_request_gets_the_same_answer_whole_and_in_pieces(system: System, name: str):
    first, *fields = REQUESTS[name]
    token = f"Authorization: Bearer {system.get_token('bob')}"
    lines = [first, "Host: 127.0.0.1", *(field.format(token=token) for field in fields)]
    request = "\r\n".join([*lines, "", ""]).encode("latin-1")
    whole = exchange(system, request)
    assert exchange(system, request, cut_at=len(request) // 2) == whole
    if whole[0] == "HTTP/1.1 200 OK" and name != "HEAD":
        assert whole[2][-1] == ("SIGNED_OUT" if name == "no token, HTML" else "CONNECTED")


def test_second_request_in_the_same_packet_is_never_answered_as_somebody_else(system: System):
    """Only its own token counts, and what follows a stream on its connection is dropped."""
    token = system.get_token("bob")
    stream = f"{_STREAM}\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    page = b"GET /api/user/messages HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    assert exchange(system, stream + page)[2][-1:] == ["CONNECTED"]
    assert exchange(system, page + stream)[0] == "HTTP/1.1 401 UNAUTHORIZED"
    refused = stream.replace(token.encode(), b"x")
    assert exchange(system, refused + stream)[0] == "HTTP/1.1 401 UNAUTHORIZED"


def test_request_cut_after_any_byte_opens_nothing_and_then_is_answered(system: System):
    request = f"{_STREAM}\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {system.get_token('bob')}\r\n\r\n".encode()
    whole = exchange(system, request)
    for cut_at in range(1, len(request), 23):
        assert exchange(system, request, cut_at=cut_at) == whole
