"""A stream that is subscribed but cannot be opened: its client is told when to retry, and nothing of it remains."""

import errno
import os
import socket
import sys

import pytest

from broadcast.streams.hub import HUB
from broadcast.streams.socket_transport import SocketTransport
from broadcast.worker.runtime import RUNTIME

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no epoll on this system")


@pytest.fixture
def sockets(app, client):
    client()
    runtime = RUNTIME.of(app)
    runtime.socket_transport = SocketTransport(runtime.hub)
    yield runtime.socket_transport
    runtime.socket_transport.close()
    runtime.socket_transport = None


@pytest.mark.parametrize("path", ["/api/sse/connect", "/inbox/stream"])
def test_client_is_told_when_to_return_when_the_worker_has_no_descriptor_left(app, client, sockets, monkeypatch, path):
    def refuse(_fd: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("broadcast.streams.socket_transport.os.dup", refuse)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answer = client("bob").get(path, environ_overrides={"gunicorn.socket": ours})
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
    assert answer.text.startswith("retry: ")
    assert "event: BUSY\n" in answer.text
    assert len(HUB.of(app)) == 0
    assert not HUB.of(app).online_user_ids


def test_stream_is_let_go_when_its_answer_fails_on_the_way_out(app, client):
    def fail(response):
        if response.mimetype == "text/event-stream" and len(HUB.of(app)):
            raise RuntimeError("a header that cannot be made")
        return response

    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.after_request_funcs.setdefault(None, []).append(fail)
    client("bob").get("/api/sse/connect")
    assert len(HUB.of(app)) == 0
