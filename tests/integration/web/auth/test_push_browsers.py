"""Turning push messages on in a browser, and letting browsers go."""

import json
import secrets
from threading import Barrier, Thread

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broadcast.actions import push_subscriptions as actions
from broadcast.channels.push import PUSH
from broadcast.store import push_subscriptions
from tests.support.builders import count_rows, load_actor
from tests.support.push_service import encode

PUSH_SERVICE = "https://fcm.googleapis.com"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"


def make_subscription(**changes) -> dict:
    point = (
        ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )
    keys = {"p256dh": encode(point), "auth": encode(secrets.token_bytes(16))}
    return {"endpoint": f"{PUSH_SERVICE}/{secrets.token_hex(8)}", "expirationTime": None, "keys": keys} | changes


def turn_on(browser, subscription: dict | None = None):
    return browser.send(
        "POST", "/account/push", json=subscription or make_subscription(), headers={"User-Agent": CHROME}
    )


def list_endpoints(app, username: str) -> list[str]:
    with app.app_context():
        return sorted(row.endpoint for row in push_subscriptions.list_of_user(load_actor(username).user_id))


def test_browser_is_listed_until_it_is_removed(app, client):
    bob, subscription = client("bob"), make_subscription()
    assert bob.get("/account/push").json["publicKey"] == PUSH.of(app).key.public_key
    assert turn_on(bob, subscription).status_code == 204
    page = bob.get("/account").text
    assert "Chrome on Linux" in page
    assert subscription["endpoint"] not in page
    path = page.partition('action="/account/push/')[2].partition('"')[0]
    assert "Removed." in bob.post(f"/account/push/{path}", follow_redirects=True).text
    assert list_endpoints(app, "bob") == []
    assert bob.post(f"/account/push/{path}").status_code == 404


def test_visit_again_changes_nothing(app, client):
    bob, subscription = client("bob"), make_subscription()
    for _ in range(3):
        assert turn_on(bob, subscription).status_code == 204
    assert list_endpoints(app, "bob") == [subscription["endpoint"]]


def test_token_of_the_answer_registers_a_browser_without_a_page(app, client):
    bob = client("bob")
    token = bob.get("/account/push").json["csrfToken"]
    response = bob.http.post("/account/push", json=make_subscription(), headers={"X-CSRFToken": token})
    assert (response.status_code, len(list_endpoints(app, "bob"))) == (204, 1)


def test_request_without_the_token_is_refused(app, client):
    bob = client("bob")
    bob.get("/account")
    for path in ("/account/push", "/account/push/off"):
        assert bob.http.post(path, json=make_subscription()).status_code == 403
    assert list_endpoints(app, "bob") == []


def test_browser_that_another_user_turns_on_is_only_theirs(app, client):
    subscription = make_subscription()
    turn_on(client("bob"), subscription)
    assert turn_on(client("charlie"), subscription).status_code == 204
    assert (list_endpoints(app, "bob"), list_endpoints(app, "charlie")) == ([], [subscription["endpoint"]])


def test_endpoint_of_somebody_else_cannot_be_taken_without_its_keys(app, client):
    subscription = make_subscription()
    turn_on(client("bob"), subscription)
    stolen = make_subscription(endpoint=subscription["endpoint"])
    assert turn_on(client("charlie"), stolen).status_code == 409
    assert list_endpoints(app, "bob") == [subscription["endpoint"]]


def test_nobody_removes_the_browser_of_somebody_else(app, client):
    subscription, charlie = make_subscription(), client("charlie")
    turn_on(client("bob"), subscription)
    with app.app_context():
        [row] = push_subscriptions.list_of_user(load_actor("bob").user_id)
    assert charlie.post(f"/account/push/{row.id}/remove").status_code == 404
    assert charlie.send("POST", "/account/push/off", json={"endpoint": subscription["endpoint"]}).status_code == 204
    assert list_endpoints(app, "bob") == [subscription["endpoint"]]


def test_turning_off_removes_this_browser_only(app, client):
    bob, kept, removed = client("bob"), make_subscription(), make_subscription()
    turn_on(bob, kept), turn_on(bob, removed)
    for _ in range(2):
        assert bob.send("POST", "/account/push/off", json={"endpoint": removed["endpoint"]}).status_code == 204
    assert list_endpoints(app, "bob") == [kept["endpoint"]]


def test_a_user_has_at_most_twenty_browsers(app, client, monkeypatch):
    monkeypatch.setattr(actions, "MAX_BROWSERS", 2)
    bob = client("bob")
    subscriptions = [make_subscription() for _ in range(3)]
    assert [turn_on(bob, subscription).status_code for subscription in subscriptions] == [204, 204, 409]
    assert turn_on(bob, subscriptions[0]).status_code == 204
    assert turn_on(client("charlie")).status_code == 204


def test_browser_in_which_a_user_signed_out_is_no_longer_listed_or_counted(app, client, monkeypatch):
    monkeypatch.setattr(actions, "MAX_BROWSERS", 1)
    first, second, subscription = client("bob"), client("bob"), make_subscription()
    turn_on(first, subscription)
    first.post("/logout")
    assert list_endpoints(app, "bob") == []
    assert turn_on(second).status_code == 204
    assert first.get("/account/push", headers={"Accept": "application/json"}).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"endpoint": f"{PUSH_SERVICE}/x"},
        make_subscription(endpoint="https://127.0.0.1/x"),
        make_subscription(endpoint="http://localhost/x"),
        make_subscription(endpoint="https://fcm.googleapis.com.evil.example/x"),
        make_subscription(keys={"p256dh": "garbage", "auth": "garbage"}),
        make_subscription(keys=None),
        make_subscription(endpoint="x" * 100_000),
    ],
)
def test_garbage_is_refused_and_nothing_is_stored(app, client, body):
    with app.app_context():
        before = count_rows()
    response = client("bob").send("POST", "/account/push", json=body, headers={"Accept": "application/json"})
    assert (response.status_code, response.mimetype) == (422, "application/problem+json")
    with app.app_context():
        assert count_rows()["push_subscriptions"] == before["push_subscriptions"] == 0


@pytest.mark.parametrize("endpoint", [None, 7, [], {"a": 1}, "x", "\0", "\ud800"])
def test_turning_off_what_is_no_browser_changes_nothing(app, client, endpoint):
    bob = client("bob")
    turn_on(bob)
    assert bob.send("POST", "/account/push/off", json={"endpoint": endpoint}).status_code in (204, 422)
    assert len(list_endpoints(app, "bob")) == 1


def test_page_that_registers_twice_at_once_makes_one(app, client):
    browsers, subscription, barrier, statuses = [client("bob") for _ in range(4)], make_subscription(), Barrier(4), []

    def run(browser) -> None:
        browser.get("/account")
        barrier.wait()
        statuses.append(turn_on(browser, subscription).status_code)

    threads = [Thread(target=run, args=(browser,)) for browser in browsers]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert set(statuses) <= {204, 409, 503}
    assert list_endpoints(app, "bob") == [subscription["endpoint"]]


def test_key_that_cannot_be_read_is_no_crash(app, client, settings):
    (settings.data_dir / "vapid_key").write_text("nonsense")
    response = client("bob").get("/account/push", headers={"Accept": "application/json"})
    assert response.status_code == 503


def test_service_worker_and_manifest_are_served_to_anybody(app):
    nobody = app.test_client()
    worker = nobody.get("/service-worker.js")
    assert (worker.status_code, worker.mimetype) == (200, "text/javascript")
    assert worker.headers["Cache-Control"] == "no-cache"
    assert "default-src 'none'" in worker.headers["Content-Security-Policy"]
    manifest = nobody.get("/manifest.webmanifest")
    assert manifest.mimetype == "application/manifest+json"
    values = json.loads(manifest.text)
    assert (values["start_url"], values["display"]) == ("/inbox", "standalone")
    for icon in values["icons"]:
        assert nobody.get(icon["src"]).mimetype == "image/png"


def test_name_of_the_app_is_quoted_in_the_manifest(make_app):
    app = make_app(app_name='A "B" </script>')
    assert json.loads(app.test_client().get("/manifest.webmanifest").text)["name"] == 'A "B" </script>'
