"""Rate limit categories: by what a request does, and by who sends it."""

import pytest

from broadcast.web.core.limits import limiter
from tests.support.builders import build_message
from tests.support.stream_reader import StreamReader
from tests.support.users import BrowserClient

ALL = {"title": "T", "content": "C", "targetType": "ALL", "when": "now"}


@pytest.fixture
def limited(make_app, client):
    """Makes an application with limits on; the cast exists. Each counts in a new memory."""
    client()
    yield lambda **changes: make_app(**{"ratelimit_enabled": True, "redis_url": None} | changes)
    limiter.enabled = False


@pytest.fixture
def one_sending(limited):
    """Alice, who may send once a minute, with what she has sent: its id."""
    app = limited(limit_publish_per_user="1/minute")
    alice = BrowserClient.for_user(app, "alice")
    return alice, alice.send("POST", "/api/admin/broadcasts", build_message()).json["id"]


@pytest.mark.parametrize(
    "path",
    [
        "/console/broadcasts",
        "/console/broadcasts/{id}/edit",
        "/console/broadcasts/{id}/send",
        "/console/broadcasts/{id}/remind",
        "/console/broadcasts/{id}/duplicate",
        "/console/broadcasts/several",
        "/console/dead-letters/1/redrive",
        "/console/dead-letters/redrive",
        "/api/admin/broadcasts",
        "/api/admin/broadcasts/{id}/remind",
        "/api/admin/dlt/1/redrive",
        "/api/admin/dlt/redrive",
    ],
)
@pytest.mark.parametrize("do", ["", "send", "test", "x", "SAVE"])
def test_whatever_may_reach_people_counts_as_sending(one_sending, path, do):
    alice, id = one_sending
    answer = alice.post(path.format(id=id), ALL | {"do": do, "live": "yes"})
    assert answer.status_code == 429


@pytest.mark.parametrize("changes", [{"notifyAgain": True}, {"priority": "URGENT"}, {"confirm": {"people": 3}}])
def test_change_that_may_alarm_again_counts_as_sending(one_sending, changes):
    alice, id = one_sending
    for _ in range(3):
        quiet = alice.send("PATCH", f"/api/admin/broadcasts/{id}", {"title": "New"}, headers={"If-Match": "*"})
        assert quiet.status_code == 200
    loud = alice.send("PATCH", f"/api/admin/broadcasts/{id}", changes, headers={"If-Match": "*"})
    assert loud.status_code == 429


@pytest.mark.parametrize("do", ["save", "review", "keep"])
def test_looking_at_a_form_or_saving_it_is_no_sending(one_sending, do):
    alice, _ = one_sending
    assert alice.post("/console/broadcasts", ALL | {"do": do, "audienceName": "All"}).status_code in (200, 303)


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/console/broadcasts", ALL | {"do": "x"}),
        ("/console/broadcasts", ALL | {"do": "Send"}),
        ("/console/broadcasts", ALL | {"when": "x"}),
        ("/console/broadcasts/{id}/edit", ALL | {"do": "save", "live": "yes"}),
        ("/console/broadcasts/several", {"act": "x", "ids": "1"}),
        ("/console/people/import", {"act": "x", "table": "username\nzoe"}),
        ("/inbox/chosen", {"verb": "x", "ids": "1"}),
        ("/preferences/pause", {"for": "x"}),
    ],
)
def test_form_that_asks_for_something_unknown_is_refused_and_does_nothing(client, path, form):
    alice = client("alice")
    id = alice.send("POST", "/api/admin/broadcasts", build_message()).json["id"]
    before = alice.get("/api/admin/broadcasts").json["items"]
    assert alice.post(path.format(id=id), form).status_code == 422
    assert alice.get("/api/admin/broadcasts").json["items"] == before


def test_everything_else_counts_per_person_whatever_the_address_of_the_page(limited):
    app = limited(limit_default="3/minute")
    alice, bob = BrowserClient.for_user(app, "alice"), BrowserClient.for_user(app, "bob")
    paths = ["/inbox", "/inbox/count", "/preferences", "/console/", "/api/user/messages"]
    assert [alice.get(path).status_code for path in paths] == [200, 200, 200, 429, 429]
    assert bob.get("/inbox").status_code == 200


def test_who_is_refused_is_counted_too(limited):
    app = limited(limit_default="3/minute")
    stranger, bob = BrowserClient.for_user(app, None), BrowserClient.for_user(app, "bob")
    wrong = {"Authorization": "Bearer bms_guess"}
    answers = [stranger.get("/api/user/messages", headers=wrong).status_code for _ in range(4)]
    assert answers == [401, 401, 401, 429]
    assert [bob.get(path).status_code for path in ("/console/", "/console/people", "/console/audit", "/console/")] == [
        403,
        403,
        403,
        429,
    ]


def _try(app, username: str, address: str) -> int:
    browser = BrowserClient.for_user(app, None)
    browser.get("/login", environ_base={"REMOTE_ADDR": address})
    form = {"username": username, "password": "wrong wrong"}
    return browser.post("/login", form, environ_base={"REMOTE_ADDR": address}).status_code


@pytest.mark.parametrize("name", [" " * 64 + "bob", "bob" + " " * 64, "ｂｏｂ", "\u3000BOB"])
def test_spelling_a_name_differently_gives_no_more_attempts(limited, name):
    app = limited(limit_login_per_account="1/minute")
    assert [_try(app, "bob", "192.0.2.1"), _try(app, name, "192.0.2.1")] == [401, 429]


@pytest.mark.parametrize("limit", ["limit_login_per_account", "limit_login_per_address"])
def test_addresses_of_one_network_count_as_one_client_at_sign_in(limited, limit):
    app = limited(**{limit: "1/minute"})
    assert [_try(app, "bob", f"2001:db8:1:2::{n}") for n in range(1, 4)] == [401, 429, 429]
    assert _try(app, "bob", "2001:db8:1:3::1") == 401
    assert [_try(app, "bob", "192.0.2.7"), _try(app, "bob", "::ffff:192.0.2.7")] == [401, 429]


def test_streams_of_one_network_count_as_one_client(limited):
    app = limited(limit_stream_per_address="1/minute")
    bob = BrowserClient.for_user(app, "bob")
    first = StreamReader(bob.http, environ_base={"REMOTE_ADDR": "2001:db8:1:2::1"})
    assert first.read_until("CONNECTED")
    first.close()
    assert StreamReader(bob.http, environ_base={"REMOTE_ADDR": "2001:db8:1:2::2"}).next_frame().event == "BUSY"


def test_open_streams_of_one_network_count_as_one_client(make_app, client):
    client()
    app = make_app(streams_per_address=1)
    bob, charlie = BrowserClient.for_user(app, "bob"), BrowserClient.for_user(app, "charlie")
    first = StreamReader(bob.http, environ_base={"REMOTE_ADDR": "2001:db8:1:2::1"})
    assert first.read_until("CONNECTED")
    refused = StreamReader(charlie.http, environ_base={"REMOTE_ADDR": "2001:db8:1:2::2"}).next_frame().event
    elsewhere = StreamReader(charlie.http, environ_base={"REMOTE_ADDR": "2001:db8:1:3::2"})
    assert refused in ("BUSY", "CONNECTION_LIMIT_REACHED")
    assert elsewhere.read_until("CONNECTED")
    first.close()
    elsewhere.close()
