"""The JSON API, route by route."""

from datetime import timedelta

import pytest

from broadcast.domain import clock
from broadcast.factory import create_app
from broadcast.worker.runtime import RUNTIME
from tests.support.builders import (
    build_message,
    build_role_message,
    build_user_message,
    count_rows,
    load_actor,
    publish_message,
)


def publish(app, raw: dict | None = None) -> int:
    with app.app_context():
        return publish_message(load_actor("alice"), raw)


def is_problem(response, status: int, *fields: str) -> dict:
    body = response.json
    assert (response.status_code, response.mimetype) == (status, "application/problem+json"), body
    assert {"type", "title", "status", "detail"} <= body.keys()
    assert body["status"] == status
    assert set(body.get("fields", {})) == set(fields), body
    return body


# ---- reading


def test_a5_read_is_idempotent(app, client):
    bob, broadcast_id = client("bob"), publish(app)
    publish(app)
    for _ in range(2):
        response = bob.send("POST", f"/api/sse/read?messageId={broadcast_id}")
        assert (response.status_code, response.json) == (200, {"id": broadcast_id, "unread": 1})


def test_a5_message_of_others_is_not_found(app, client):
    theirs = publish(app, build_role_message("ops"))
    for nobody in (theirs, 99_999, 10**17):
        is_problem(client("charlie").send("POST", f"/api/sse/read?messageId={nobody}"), 404)


@pytest.mark.parametrize("number", ["", "x", "-1", "1.5", "9" * 30, "１", "0x1", "1 "])
def test_a5_message_id_is_a_number(client, number):
    is_problem(client("bob").send("POST", f"/api/sse/read?messageId={number}"), 422, "messageId")


def test_a7_read_many(app, client):
    """What is addressed to the caller is marked, the answer is the new count."""
    bob, ids = client("bob"), [publish(app) for _ in range(3)]
    response = bob.send("POST", "/api/user/messages/read", {"broadcastIds": ids[:2]})
    assert (response.status_code, response.json) == (200, {"unread": 1})
    is_problem(bob.send("POST", "/api/user/messages/read", {"broadcastIds": [99_999]}), 404)


@pytest.mark.parametrize(
    "ids", [None, [], "1", [True], ["1"], [1.0], [0], [-1], [2**63], [None], [[1]], {"a": 1}, list(range(1, 1002))]
)
def test_a7_ids_are_a_list_of_ids(client, ids):
    is_problem(client("bob").send("POST", "/api/user/messages/read", {"broadcastIds": ids}), 422, "broadcastIds")


def test_a7_read_all_by_filter_and_through(app, client):
    bob = client("bob")
    publish(app, build_message(category="News"))
    publish(app)
    through = bob.get("/api/user/messages").json["items"][0]
    publish(app)
    assert through["category"] is None
    assert bob.send("POST", "/api/user/messages/read-all", {"category": "News"}).json == {"unread": 2}
    assert bob.send("POST", "/api/user/messages/read-all", {"through": 2}).json == {"unread": 1}
    assert bob.send("POST", "/api/user/messages/read-all").json == {"unread": 0}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"through": "2"}, "through"), ({"through": -1}, "through"), ({"through": True}, "through"),
        ({"through": 2**63}, "through"), ({"everything": True}, "everything"), ({"q": 1}, "q"),
        ({"category": None}, "category"),
        ({"q": "\ud800"}, "q"), ([], "body"), ("x", "body"),
    ],
)  # fmt: skip
def test_a7_read_all_refuses_what_it_does_not_know(app, client, body, field):
    """A slip in a filter must not mark everything read."""
    publish(app)
    bob = client("bob")
    is_problem(bob.send("POST", "/api/user/messages/read-all", body), 422, field)
    assert bob.get("/api/user/messages").json["unread"] == 1


# ---- the inbox


def test_a6_inbox_is_newest_first_with_unread_and_cursor(app, client):
    bob = client("bob")
    first, second = publish(app, build_message(title="first")), publish(app, build_role_message("ops", title="second"))
    bob.send("POST", f"/api/sse/read?messageId={first}")
    inbox = bob.get("/api/user/messages").json
    assert [(item["id"], item["title"], item["read"]) for item in inbox["items"]] == [
        (second, "second", False), (first, "first", True),
    ]  # fmt: skip
    assert (inbox["unread"], inbox["next"]) == (1, None)
    assert inbox["cursor"].endswith("-2")
    unread = bob.get("/api/user/messages?view=unread").json
    assert [item["id"] for item in unread["items"]] == [second]


def test_a6_pages_have_no_gap_while_messages_arrive(app, client):
    bob = client("bob")
    ids = [publish(app) for _ in range(5)]
    seen, after = [], ""
    while after is not None:
        page = bob.get(f"/api/user/messages?limit=2{after and '&after=' + after}").json
        seen += [item["id"] for item in page["items"]]
        after = page["next"]
        publish(app)
    assert seen == ids[::-1]


@pytest.mark.parametrize(
    ("query", "field"),
    [("view=archive", "view"), ("limit=0", "limit"), ("limit=201", "limit"), ("limit=x", "limit"), ("after=x", "after"),
     ("after=", "after"), ("after=-1", "after"), ("after=" + "9" * 40, "after")],
)  # fmt: skip
def test_a6_wrong_query_is_told(client, query, field):
    is_problem(client("bob").get(f"/api/user/messages?{query}"), 422, field)


@pytest.mark.parametrize(
    "query", ["q=%25", "q=%00", "category=%00", "priority=%00", "q=%FF%FE", "category=" + "x" * 999, "q=a%00b"]
)
def test_a6_odd_filters_find_nothing_and_break_nothing(app, client, query):
    publish(app)
    response = client("bob").get(f"/api/user/messages?{query}")
    assert response.status_code == 200
    assert len(response.json["items"]) <= 1


# ---- publishing


def test_a9_created_broadcast_is_told_with_its_place(app, client):
    """The sender is the caller, whatever the body says."""
    alice = client("alice")
    made = alice.send("POST", "/api/admin/broadcasts", build_user_message("bob", "charlie", priority="HIGH"))
    assert made.status_code == 201
    assert made.headers["Location"] == f"/api/admin/broadcasts/{made.json['id']}"
    assert alice.get(made.headers["Location"]).json == made.json
    with app.app_context():
        ids = sorted([load_actor("bob").user_id, load_actor("charlie").user_id])
    expected = {
        "senderName": "Alice",
        "status": "ACTIVE",
        "targetIds": ids,
        "targetType": "SELECTED",
        "priority": "HIGH",
    }
    assert made.json | expected == made.json
    assert made.json["stats"] | {"targeted": 2, "read": 0} == made.json["stats"]


def test_a9_scheduled_and_draft(client):
    alice = client("alice")
    later = clock.to_rfc3339(clock.now() + timedelta(hours=1))
    assert alice.send("POST", "/api/admin/broadcasts", build_message(scheduledAt=later)).json["status"] == "SCHEDULED"
    assert alice.send("POST", "/api/admin/broadcasts", build_message(draft=True)).json["status"] == "DRAFT"


def test_a9_idempotency_key(client):
    """I7: 201, then 200 for the same, 409 for another message."""
    alice, headers = client("alice"), {"Idempotency-Key": "k 1"}
    first = alice.send("POST", "/api/admin/broadcasts", build_message(), headers=headers)
    again = alice.send("POST", "/api/admin/broadcasts", build_message(), headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json["id"] == again.json["id"]
    is_problem(alice.send("POST", "/api/admin/broadcasts", build_message(title="Other"), headers=headers), 409)


@pytest.mark.parametrize("key", ["", "x" * 201, "caf\u00e9", "a\tb"])
def test_a9_odd_idempotency_key_is_refused(client, key):
    made = client("alice").send("POST", "/api/admin/broadcasts", build_message(), headers={"Idempotency-Key": key})
    is_problem(made, 422, "Idempotency-Key")


# ---- lists and one


def test_a10_lists_by_filter_search_and_page(app, client):
    alice = client("alice")
    draft, live = (
        publish(app, build_message(draft=True, title="Draft")),
        publish(app, build_message(title="100 % live")),
    )
    url = "/api/admin/broadcasts"
    for query, ids in [("", [live, draft]), ("?filter=draft", [draft]), ("?filter=active", [live]), ("?filter=ended", []),
                       ("?q=%25", [live]), ("?q=lIvE", [live]), ("?q=%00", [live, draft])]:  # fmt: skip
        assert [item["id"] for item in alice.get(url + query).json["items"]] == ids, query
    page = alice.get(f"{url}?limit=1").json
    assert ([item["id"] for item in page["items"]], page["next"]) == ([live], str(live))
    page = alice.get(f"{url}?limit=1&after={page['next']}").json
    assert ([item["id"] for item in page["items"]], page["next"]) == ([draft], None)
    is_problem(alice.get(f"{url}?filter=nonsense"), 422, "filter")


def test_a10_etag_saves_the_second_answer_and_changes_with_the_status(app, client):
    alice, broadcast_id = client("alice"), publish(app)
    url = f"/api/admin/broadcasts/{broadcast_id}"
    etag = alice.get(url).headers["ETag"]
    assert alice.get(url, headers={"If-None-Match": etag}).status_code == 304
    alice.send("DELETE", url)
    assert alice.get(url, headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize("number", ["99999", "0", "9" * 17, str(2**63), "9" * 40, "9" * 5000])
def test_broadcast_that_does_not_exist_is_not_found(client, number):
    """Also for numbers that no database can hold."""
    alice = client("alice")
    url = f"/api/admin/broadcasts/{number}"
    for method, path in [("GET", url), ("GET", url + "/stats"), ("DELETE", url), ("POST", url + "/cancel")]:
        is_problem(alice.send(method, path), 404)
    for path in (f"/inbox/{number}", f"/console/broadcasts/{number}", f"/console/broadcasts/{number}/stats"):
        assert alice.get(path).status_code == 404
    for path in (f"/inbox/{number}/read", f"/console/broadcasts/{number}/send"):
        assert alice.post(path).status_code == 404
    assert alice.post(f"/console/broadcasts/{number}/cancel", {"reason": "x"}).status_code == 404


# ---- recalling, and who has it


@pytest.mark.parametrize(("method", "tail"), [("DELETE", ""), ("POST", "/cancel")])
def test_a12_recall_with_a_reason_and_only_once(app, client, method, tail):
    alice, broadcast_id = client("alice"), publish(app)
    url = f"/api/admin/broadcasts/{broadcast_id}{tail}"
    told = alice.send(method, url, {"reason": "Wrong date"})
    assert (told.status_code, told.json["status"], told.json["cancelReason"]) == (200, "CANCELLED", "Wrong date")
    assert told.json["endedAt"]
    with app.app_context():
        before = count_rows()
    is_problem(alice.send(method, url, {"reason": "Again"}), 409)
    with app.app_context():
        assert count_rows() == before


@pytest.mark.parametrize("reason", ["", 5, None, "x" * 501, "\ud800", ["x"]])
def test_a12_reason_is_a_sentence(app, client, reason):
    broadcast_id = publish(app)
    is_problem(
        client("alice").send("DELETE", f"/api/admin/broadcasts/{broadcast_id}", {"reason": reason}), 422, "reason"
    )


def test_a13_totals(app, client):
    broadcast_id = publish(app)
    client("bob").send("POST", f"/api/sse/read?messageId={broadcast_id}")
    assert client("alice").get(f"/api/admin/broadcasts/{broadcast_id}/stats").json == {
        "targeted": 3, "delivered": 1, "seen": 1, "read": 1, "acknowledged": 0,
        "rates": {"delivered": 0.3333, "seen": 0.3333, "read": 0.3333, "acknowledged": 0.0},
        "missing": 2, "noLongerHere": 0, "sentTo": 3, "wouldReach": None, "roundedTo": 1,
    }  # fmt: skip


# ---- whether it is well


def test_a17_alive_ready_metrics(app, client, settings):
    """Ready names what fails, and what is only degraded does not fail."""
    nobody = client()
    assert nobody.get("/healthz").json == {"status": "ok"}
    assert nobody.get("/readyz").json == {"status": "ok", "failing": {}, "degraded": {}}
    runtime = RUNTIME.of(app)
    runtime.problems["clock"] = "ValueError: secret detail"
    told = nobody.get("/readyz")
    assert (told.status_code, told.json["status"], list(told.json["degraded"])) == (200, "degraded", ["clock"])
    assert "secret detail" not in told.get_data(as_text=True)
    told = create_app(settings).test_client().get("/readyz")
    assert (told.status_code, list(told.json["failing"])) == (503, ["tail"])
    assert b"broadcast_streams " in client("alice").get("/metrics").data
