"""Tests that use `stream_path` run on each path that a request for a stream can take."""

from collections.abc import Iterator

import pytest

from tests.support.stream_reader import STREAM_PATHS, StreamReader
from tests.support.stream_visits import Visitor


@pytest.fixture(params=STREAM_PATHS)
def stream_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The path that readers of this test take."""
    monkeypatch.setattr(StreamReader, "default_path", request.param)
    yield request.param
    while StreamReader.transports:
        StreamReader.transports.pop().close()


@pytest.fixture
def visit() -> Iterator[Visitor]:
    """`visit(app, headers, path=…, peer=…)`: the answer of the path before WSGI, None if it leaves the request."""
    visitor = Visitor()
    yield visitor
    visitor.close()
    while StreamReader.transports:
        StreamReader.transports.pop().close()
