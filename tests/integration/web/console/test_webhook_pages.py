"""The pages about webhooks: adding, what is shown once, what can be done, and what hostile answers look like."""

import re
from collections.abc import Iterator

import pytest

from broadcast.actions import webhooks as actions
from broadcast.channels.webhooks import WEBHOOKS
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.store import webhooks
from tests.support.builders import load_actor, publish_message
from tests.support.raw_server import run_raw_server, send_bytes

FORM = {"url": "https://receiver.example/hook", "eventTypes": ["broadcast.published", "broadcast.recalled"]}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_private_addresses": True})


@pytest.fixture
def alice(client):
    return client("alice")


def answer_with(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def hostile_port() -> Iterator[int]:
    """A server whose answer is markup, with a control character."""
    with run_raw_server(send_bytes(answer_with("500 No", b"<script>alert(1)</script>\0"))) as (port, _):
        yield port


def find_secret(page: str) -> str | None:
    found = re.search(r"whsec_[A-Za-z0-9+/=]+", page.replace("&#43;", "+").replace("&#61;", "="))
    return found and found[0]


def test_secret_is_shown_once(alice):
    assert "No webhooks yet" in alice.get("/console/webhooks").text
    page = alice.post("/console/webhooks", data=FORM).text
    secret = find_secret(page)
    assert len(secret) > 40
    for path in ("/console/webhooks", "/console/webhooks/1"):
        assert find_secret(alice.get(path).text) is None
    rotated = find_secret(alice.post("/console/webhooks/1/secret").text)
    assert rotated != secret
    assert "signs until" in alice.get("/console/webhooks/1").text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"url": "ftp://x"}, "must begin with https://"),
        ({"url": ""}, "must begin with https://"),
        ({"url": "https://" + "a" * 3000}, "longer than 2,000"),
        ({"url": "https://x.example/\0"}, "has a space or another character"),
        ({"eventTypes": []}, "Choose at least one event type"),
        ({"eventTypes": ["<b>"]}, "&lt;b&gt; is not an event type"),
    ],
)
def test_mistakes_are_named_beside_their_fields_and_nothing_is_written(alice, app, changes, sentence):
    response = alice.post("/console/webhooks", data=FORM | changes)
    assert response.status_code == 422
    assert sentence in response.text
    alice.post("/console/webhooks", data=FORM)
    response = alice.post("/console/webhooks/1", data=FORM | changes)
    assert response.status_code == 422
    assert sentence in response.text
    with app.app_context():
        assert [endpoint.url for endpoint in webhooks.list_endpoints()] == [FORM["url"]]


def test_endpoint_is_changed_paused_resumed_and_deleted(alice, app):
    alice.post("/console/webhooks", data=FORM)
    saved = alice.post("/console/webhooks/1", data={"url": "https://b.example", "eventTypes": "broadcast.ended"})
    assert saved.status_code == 303
    assert "https://b.example" in alice.get("/console/webhooks/1").text
    for chosen, sentence in (("pause", "Paused. Everything waits"), ("resume", "Resumed."), ("enable", "Enabled.")):
        page = alice.post("/console/webhooks/1/state", data={"do": chosen}, follow_redirects=True).text
        assert sentence in page
    assert alice.post("/console/webhooks/1/state", data={"do": "explode"}).status_code == 422
    assert "No webhooks yet" in alice.post("/console/webhooks/1/delete", follow_redirects=True).text
    assert alice.post("/console/webhooks/1/delete").status_code == 404


def test_test_reports_what_the_endpoint_answered(alice, hostile_port):
    with run_raw_server(send_bytes(answer_with("204 Fine", b""))) as (port, requests):
        alice.post("/console/webhooks", data=FORM | {"url": f"http://127.0.0.1:{port}/"})
        page = alice.post("/console/webhooks/1/test", follow_redirects=True).text
        assert "The endpoint answered 204 in" in page
        assert requests[0].startswith(b"POST / HTTP/1.1")
    alice.post("/console/webhooks/1", data=FORM | {"url": f"http://127.0.0.1:{hostile_port}/"})
    page = alice.post("/console/webhooks/1/test", follow_redirects=True).text
    assert "The test failed. The endpoint answered 500." in page


def test_deliveries_are_listed_with_their_attempts_and_replayed(alice, app, hostile_port):
    alice.post("/console/webhooks", data=FORM | {"url": f"http://127.0.0.1:{hostile_port}/"})
    with app.app_context():
        publish_message(load_actor("alice"))
        WEBHOOKS.of(app).run_once()
        WEBHOOKS.of(app).wait()
    page = alice.get("/console/webhooks/1").text
    assert "broadcast.published" in page
    assert "Failing since" in page
    delivery = alice.get("/console/webhooks/1/deliveries/1").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in delivery
    assert "It is tried again" in delivery
    assert alice.post("/console/webhooks/1/deliveries/1/replay").status_code == 409
    assert alice.get("/console/webhooks/1/deliveries/2").status_code == 404
    assert alice.get("/console/webhooks/2/deliveries/1").status_code == 404


def test_long_log_is_paged(alice, app):
    alice.post("/console/webhooks", data=FORM)
    with app.app_context():
        for _ in range(51):
            publish_message(load_actor("alice"))
        actions.update_endpoint(1, is_paused=True, by=load_actor("alice"), now=clock.now())
        WEBHOOKS.of(app).run_once()
    page = alice.get("/console/webhooks/1").text
    assert page.count('data-label="Attempts"') == 50
    [before] = re.findall(r"\?before=(\d+)", page)
    assert alice.get(f"/console/webhooks/1?before={before}").text.count('data-label="Attempts"') == 1
    assert alice.get("/console/webhooks/1?before=x").status_code == 200
