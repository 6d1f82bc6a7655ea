"""How streams end, and who may not have one: sign-out, disconnect, limits, other sites."""

import pytest

from broadcast.actions import users
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.factory import create_app
from broadcast.streams.hub import HUB
from tests.conftest import deliver_new_events
from tests.support.builders import load_actor
from tests.support.stream_reader import StreamReader
from tests.support.users import BrowserClient

pytestmark = pytest.mark.usefixtures("stream_path")


def open_streams(app) -> int:
    return len(HUB.of(app))


def connected(person: BrowserClient, **options) -> tuple[StreamReader, str]:
    stream = StreamReader(person.http, **options)
    return stream, stream.read_until("CONNECTED")[-1].data["connectionId"]


def test_sign_out_closes_the_streams_of_that_session_only(app, client):
    bob, elsewhere = client("bob"), client("bob")
    stream, _ = connected(bob)
    other, _ = connected(elsewhere)
    assert bob.post("/logout").status_code == 303
    deliver_new_events(app)
    assert [stream.next_frame().event, stream.next_frame()] == ["SIGNED_OUT", None]
    assert open_streams(app) == 1
    other.close()
    assert open_streams(app) == 0


def test_disabled_person_loses_every_stream(app, client):
    streams = [connected(client("bob"))[0] for _ in range(2)]
    with app.app_context():
        users.disable_user(load_actor("bob").user_id, by=SYSTEM, now=clock.now())
    deliver_new_events(app)
    for stream in streams:
        assert [stream.next_frame().event, stream.next_frame()] == ["SIGNED_OUT", None]


def test_disconnect_closes_the_own_stream(app, client):
    bob = client("bob")
    stream, connection_id = connected(bob)
    for _ in range(2):
        assert bob.send("POST", f"/api/sse/disconnect?connectionId={connection_id}").status_code == 204
    assert stream.next_frame() is None
    assert open_streams(app) == 0


def test_disconnect_as_a_beacon_sends_it(app, client):
    """`navigator.sendBeacon` has no headers of its own; the token goes in the form."""
    bob = client("bob")
    _, connection_id = connected(bob)
    assert bob.post(f"/api/sse/disconnect?connectionId={connection_id}").status_code == 204
    assert open_streams(app) == 0


@pytest.mark.parametrize("of", ["bob's", "nobody's", ""])
def test_disconnect_of_what_is_not_ones_own_changes_nothing(app, client, of):
    """An unknown id is a 204, and one learns nothing about others."""
    stream, connection_id = connected(client("bob"))
    asked = {"bob's": connection_id, "nobody's": "x" * 10_000, "": ""}[of]
    assert client("charlie").send("POST", f"/api/sse/disconnect?connectionId={asked}").status_code == 204
    assert open_streams(app) == 1
    stream.close()


def test_stream_is_opened_for_oneself_only(app, client):
    """`userId`, if sent, must be the one who asks."""
    bob = client("bob")
    with app.app_context():
        own, other = load_actor("bob").user_id, load_actor("alice").user_id
    assert bob.get(f"/api/sse/connect?userId={other}").status_code == 403
    stream, connection_id = connected(bob, query_string={"userId": own, "connectionId": "my-own"})
    assert connection_id != "my-own"
    assert HUB.of(app).find(connection_id).label == "my-own"
    stream.close()


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_stream_refuses_other_sites_and_has_no_cors(app, client, site):
    bob = client("bob")
    for path in ("/api/sse/connect", "/inbox/stream"):
        assert bob.get(path, headers={"Sec-Fetch-Site": site}).status_code == 403
        response = bob.get(path, headers={"Origin": "https://evil.example"}, buffered=False)
        assert "Access-Control-Allow-Origin" not in response.headers
        response.close()


def test_stream_is_neither_cached_nor_buffered(client):
    stream, _ = connected(client("bob"))
    assert stream.response.headers["Cache-Control"] == "no-store"
    assert stream.response.headers["X-Accel-Buffering"] == "no"
    stream.close()


@pytest.mark.parametrize("path", ["/api/sse/connect", "/inbox/stream"])
def test_head_request_and_early_leaver_hold_no_stream(app, client, path):
    bob = client("bob")
    bob.http.head(path, buffered=False).close()
    assert open_streams(app) == 0
    bob.get(path, buffered=False).close()
    assert open_streams(app) == 0


def test_many_tabs_are_limited_politely(make_app, client):
    """A refusal is 200 with one block: 429 would end a browser's EventSource for good."""
    client()
    app = make_app(streams_per_user=2)
    bob = BrowserClient.for_user(app, "bob")
    streams = [connected(bob)[0] for _ in range(2)]
    refused = StreamReader(bob.http)
    assert refused.response.status_code == 200
    assert [refused.next_frame().event, refused.next_frame()] == ["CONNECTION_LIMIT_REACHED", None]
    streams[0].close()
    connected(bob)[0].close()
    streams[1].close()


def test_full_and_draining_workers_answer_busy(make_app, client):
    client()
    app = make_app(streams_per_worker=1)
    stream, _ = connected(BrowserClient.for_user(app, "bob"))
    for path in ("/api/sse/connect", "/inbox/stream"):
        refused = StreamReader(BrowserClient.for_user(app, "charlie").http, path)
        assert [refused.next_frame().event, refused.next_frame()] == ["BUSY", None]
    stream.close()
    HUB.of(app).is_draining = True
    assert StreamReader(BrowserClient.for_user(app, "bob").http).next_frame().event == "BUSY"


@pytest.mark.parametrize("path", ["/api/sse/connect", "/inbox/stream"])
def test_stream_while_the_log_has_not_been_read_yet_is_busy(settings, client, path):
    client()
    starting = create_app(settings)
    assert StreamReader(BrowserClient.for_user(starting, "bob").http, path).next_frame().event == "BUSY"
