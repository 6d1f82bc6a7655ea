"""The API for webhook endpoints."""

import pytest

from broadcast.channels.webhooks import WEBHOOKS
from broadcast.config.settings import Settings
from tests.support.builders import load_actor, publish_message
from tests.support.raw_server import run_raw_server, send_bytes
from tests.support.routes import make_bearer_headers

ENDPOINT = {"url": "https://receiver.example/hook", "eventTypes": ["broadcast.published"]}
PATH = "/api/admin/webhooks"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_private_addresses": True})


@pytest.fixture
def call(app, seeded_users):
    headers, browser = make_bearer_headers(app, "alice", ["admin"]), app.test_client()

    def send(method: str, path: str = "", body: object = None):
        return browser.open(PATH + path, method=method, json=body, headers=headers)

    return send


def test_endpoint_is_added_changed_and_deleted(call):
    added = call("POST", body=ENDPOINT)
    assert added.status_code == 201
    assert added.json["secret"].startswith("whsec_")
    assert "secret" not in call("GET", "/1").json
    assert [item["url"] for item in call("GET").json["items"]] == [ENDPOINT["url"]]
    changed = call("PATCH", "/1", {"paused": True, "eventTypes": ["broadcast.ended"]})
    assert (changed.json["eventTypes"], changed.json["pausedAt"] is None) == (["broadcast.ended"], False)
    assert call("PATCH", "/1", {"paused": False, "enabled": True}).json["pausedAt"] is None
    rotated = call("POST", "/1/secret")
    assert rotated.json["secret"] != added.json["secret"]
    assert call("GET", "/1").json["previousSecretUntil"] is not None
    assert call("DELETE", "/1").status_code == 204
    assert call("GET", "/1").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        ENDPOINT | {"surprise": 1},
        ENDPOINT | {"url": 1},
        ENDPOINT | {"url": None},
        ENDPOINT | {"url": "\ud800"},
        ENDPOINT | {"eventTypes": "broadcast.published"},
        ENDPOINT | {"eventTypes": [1]},
        ENDPOINT | {"eventTypes": ["\ud800"]},
        ENDPOINT | {"eventTypes": {}},
        ENDPOINT | {"eventTypes": [["broadcast.published"]]},
    ],
)
def test_wrong_endpoint_is_422_and_nothing_is_written(call, body):
    assert call("POST", body=body).status_code == 422
    assert call("GET").json["items"] == []


@pytest.mark.parametrize("body", [{"paused": "yes"}, {"enabled": 1}, {"url": ""}, {"eventTypes": []}, {"id": 2}])
def test_wrong_change_is_422(call, body):
    call("POST", body=ENDPOINT)
    assert call("PATCH", "/1", body).status_code == 422


def test_deliveries_have_their_attempts_and_are_replayed(call, app):
    with run_raw_server(send_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")) as (port, _):
        call("POST", body=ENDPOINT | {"url": f"http://127.0.0.1:{port}/"})
        assert call("POST", "/1/test").json["answer"] == "hi"
        with app.app_context():
            publish_message(load_actor("alice"))
            WEBHOOKS.of(app).run_once()
            WEBHOOKS.of(app).wait()
        [item] = call("GET", "/1/deliveries").json["items"]
        assert (item["type"], item["state"]) == ("broadcast.published", "SENT")
        detail = call("GET", f"/1/deliveries/{item['id']}").json
        assert '"title":"Lifts"' in detail["body"]
        assert [attempt["status"] for attempt in detail["attempts"]] == [200]
        assert call("POST", f"/1/deliveries/{item['id']}/replay").status_code == 204
        assert call("GET", "/1/deliveries?limit=1").json["items"][0]["state"] == "WAITING"
        assert call("GET", "/2/deliveries").status_code == 404
