"""Recognizes a whole request for a stream in the first bytes of a connection.

Only what every HTTP parser reads in one way is recognized: one GET in plain ASCII, without a body, with nothing after
it, and each header once. Anything else is left to gunicorn, which reads the same bytes again.
"""

import re
from dataclasses import dataclass

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from broadcast.web.streams.stream_request import API_PATH, INBOX_PATH

MAX_HEAD_BYTES = 8192
_PATHS = (INBOX_PATH, API_PATH)
_STARTS = tuple(f"GET {path}".encode() for path in _PATHS)
_END = b"\r\n\r\n"
_MAX_HEADERS = 100  # as gunicorn's limit_request_fields
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_HEADERS_OF_OTHERS = {"content-length", "transfer-encoding", "expect", "upgrade"}  # a body, or more than this answer


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Path and query as they were sent, and headers by their name in lower case."""

    path: str
    query: str
    headers: dict[str, str]


class _Collector:
    """Receives the callbacks of httptools."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


def parse_request_head(data: bytes) -> RequestHead | None:
    """The request in `data`, all that has arrived. None unless it is sure to be one request for a stream."""
    if not data.startswith(_STARTS) or data.find(_END) != len(data) - len(_END) or not data.isascii():
        return None
    collector = _Collector()
    try:
        HttpRequestParser(collector).feed_data(data)
    except (HttpParserError, HttpParserUpgrade):
        return None
    url, fields = collector.url, collector.headers
    headers = {name.decode("ascii").lower(): value.decode("ascii").strip(" \t") for name, value in fields}
    path, _, query = url.decode("ascii").partition("?")
    is_sure = (
        path in _PATHS
        and "#" not in query
        and data.startswith(b"GET %b HTTP/1.1\r\n" % url)
        and len(headers) == len(fields) <= _MAX_HEADERS
        and _HOST.fullmatch(headers.get("host", "")) is not None
        and _HEADERS_OF_OTHERS.isdisjoint(headers)
    )
    return RequestHead(path, query, headers) if is_sure else None
