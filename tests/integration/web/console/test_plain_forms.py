"""Pages without JavaScript: a post answers 303, and an error returns the form as it was typed."""

import html
import re

import pytest

from broadcast.actions import broadcasts as actions
from broadcast.domain import clock
from broadcast.store import broadcasts
from tests.support.builders import (
    build_message,
    build_role_message,
    count_rows,
    expire_broadcast,
    load_actor,
    publish_message,
)

UNREAD = " data-unread data-priority"
FORM = {"title": "T", "content": "C", "targetType": "ALL", "priority": "NORMAL", "when": "now"}


def publish(app, raw: dict | None = None) -> int:
    with app.app_context():
        return publish_message(load_actor("alice"), raw)


def text_of(response) -> str:
    return html.unescape(response.get_data(as_text=True))


def status_of(app, broadcast_id: int) -> str:
    with app.app_context():
        return broadcasts.get(broadcast_id).status


# ---- compose


@pytest.mark.parametrize(
    ("more", "status", "seen_by_bob"),
    [
        ({}, "ACTIVE", True),
        ({"targetType": "ROLE", "roles": ["ops", "admin"]}, "ACTIVE", True),
        ({"targetType": "SELECTED", "people": "charlie"}, "ACTIVE", False),
        ({"draft": "true"}, "DRAFT", False),
        ({"when": "later", "scheduledAt": "2998-01-01T10:00", "timeZone": "Europe/Berlin"}, "SCHEDULED", False),
    ],
)
def test_composed_message_goes_where_the_form_says(app, client, more, status, seen_by_bob):
    response = client("alice").post("/console/broadcasts", FORM | more)
    assert response.status_code == 303
    broadcast_id = int(response.location.rpartition("/")[2])
    assert response.location == f"/console/broadcasts/{broadcast_id}"
    assert status_of(app, broadcast_id) == status
    assert (f'id="card-{broadcast_id}"' in text_of(client("bob").get("/inbox"))) == seen_by_bob


def test_refused_form_comes_back_as_it_was_typed(app, client):
    """422 with what was typed and a sentence at each field; nothing is written, the key stays the same."""
    typed = {
        "title": "x" * 201, "content": "My <long> text & more", "targetType": "SELECTED", "people": "bob, nobody",
        "priority": "HIGH", "category": "News", "when": "later", "scheduledAt": "2026-13-01T00:00",
        "idempotencyKey": "key-of-this-form",
    }  # fmt: skip
    with app.app_context():
        client()
        before = count_rows()
    alice = client("alice")
    response = alice.post("/console/broadcasts", typed)
    page = text_of(response)
    assert response.status_code == 422
    for value in ("x" * 201, "My <long> text & more", "bob, nobody", "key-of-this-form"):
        assert value in page
    assert "at most 200 fit" in page
    assert "not a date and time" in page
    assert re.search(r'value="HIGH"[^>]*(checked|selected)', page)
    fixed = typed | {"title": "ok", "when": "now"}
    response = alice.post("/console/broadcasts", fixed)
    assert response.status_code == 422
    assert "There is no user called nobody" in text_of(response)
    with app.app_context():
        after = count_rows()
        assert {name for name in before if after[name] != before[name]} <= {"sessions"}


def test_double_click_makes_one_broadcast(app, client):
    """F19: both answers lead to the same page."""
    alice = client("alice")
    key = re.search(r'name="idempotencyKey" value="([^"]+)"', text_of(alice.get("/console/broadcasts/new")))[1]
    places = {alice.post("/console/broadcasts", FORM | {"idempotencyKey": key}).location for _ in range(2)}
    assert len(places) == 1
    with app.app_context():
        assert count_rows()["broadcasts"] == 1
    assert alice.post("/console/broadcasts", FORM | {"title": "Other", "idempotencyKey": key}).status_code == 409
    assert alice.post("/console/broadcasts", FORM | {"idempotencyKey": "\0"}).status_code == 303


@pytest.mark.parametrize("field", ["senderId", "status", "seq", "revision", "isAdmin", "sender_name"])
def test_form_cannot_set_what_it_does_not_show(app, client, field):
    """Mass assignment."""
    response = client("alice").post("/console/broadcasts", FORM | {field: "9"})
    with app.app_context():
        broadcast = broadcasts.get(int(response.location.rpartition("/")[2]))
        assert (broadcast.sender_name, broadcast.status, broadcast.revision) == ("Alice", "ACTIVE", 1)


def test_preview_is_the_card_and_writes_nothing(app, client):
    alice = client("alice")
    alice.get("/inbox")
    with app.app_context():
        before = count_rows()
    page = alice.post("/console/preview", {"title": "<i>T", "content": "**C** <script>x</script>"}).get_data(
        as_text=True
    )
    assert "&lt;i&gt;T" in page
    assert "<strong>C</strong>" in page
    assert "<script" not in page
    for form in (
        {},
        {"title": "x" * 201},
        {"content": "x" * 20_000},
        {"title": "a\0"},
        {"priority": "LOUD", "title": "a"},
    ):
        assert alice.post("/console/preview", form).status_code == 200
    with app.app_context():
        assert count_rows() == before


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"targetType": "ALL"}, "3 people will get this"),
        ({"targetType": "ROLE", "roles": "ops"}, "1 person will get this"),
        ({"targetType": "ROLE", "roles": ["ops", "admin"]}, "2 people will get this"),
        ({"targetType": "SELECTED", "people": "bob charlie"}, "2 people will get this"),
        ({"targetType": "SELECTED", "people": "bob nobody"}, "no user called nobody"),
        ({"targetType": "ROLE", "roles": "nosuch"}, "no role nosuch"),
        ({"targetType": "ROLE"}, "at least one role"),
        ({"targetType": "nonsense"}, "must be one of"),
        ({}, "must be one of"),
    ],
)
def test_audience_is_counted_while_composing(client, form, words):
    response = client("alice").post("/console/audience", form)
    assert response.status_code == 200
    assert words in text_of(response)


# ---- the console


@pytest.mark.parametrize(
    "raw",
    [
        build_message(),
        build_role_message("ops"),
        build_message(draft=True),
        build_message(scheduledAt="2998-01-01T00:00:00Z"),
    ],
)
def test_recall_from_the_console(app, client, raw):
    alice, broadcast_id = client("alice"), publish(app, raw)
    url = f"/console/broadcasts/{broadcast_id}"
    assert alice.post(f"{url}/cancel", {"reason": "  "}).status_code == 422
    assert status_of(app, broadcast_id) != "CANCELLED"
    response = alice.post(f"{url}/cancel", {"reason": "Wrong <date>"})
    assert (response.status_code, response.location) == (303, url)
    assert status_of(app, broadcast_id) == "CANCELLED"
    assert "recalled it: “Wrong <date>”" in text_of(alice.get(url))
    assert alice.post(f"{url}/cancel", {"reason": "Again"}).status_code == 409


def test_refused_recall_says_why(app, client):
    broadcast_id = publish(app)
    response = client("alice").post(f"/console/broadcasts/{broadcast_id}/cancel", {"reason": "  "})
    assert "Give a reason for the recall" in text_of(response)


def test_draft_is_sent_from_the_console_once(app, client):
    alice, broadcast_id = client("alice"), publish(app, build_message(draft=True))
    url = f"/console/broadcasts/{broadcast_id}"
    assert alice.post(f"{url}/send").location == url
    assert status_of(app, broadcast_id) == "ACTIVE"
    assert alice.post(f"{url}/send").status_code == 409


@pytest.mark.parametrize(
    "path", ["", "?filter=nonsense", "?q=%25_%5C", "?q=%00", "?after=x", "?after=" + "9" * 40, "?filter=active&q=Lifts"]
)
def test_console_list_takes_any_query(app, client, path):
    publish(app)
    alice = client("alice")
    assert alice.get(f"/console/broadcasts{path}").status_code == 200
    assert alice.get(f"/console/broadcasts{path}", headers={"HX-Request": "true"}).status_code == 200


def test_every_status_has_its_page(app, client):
    alice = client("alice")
    ids = [
        publish(app, raw)
        for raw in (build_message(), build_message(draft=True), build_message(scheduledAt="2998-01-01T00:00:00Z"))
    ]
    with app.app_context():
        by, now = load_actor("alice"), clock.now()
        ended = [publish_message(by) for _ in range(2)]
        actions.cancel(ended[0], reason="Wrong", by=by, now=now)
        expire_broadcast(ended[1], now=now)
    for broadcast_id in ids + ended:
        for path in ("", "/stats"):
            assert alice.get(f"/console/broadcasts/{broadcast_id}{path}").status_code == 200
    assert alice.get("/console/").status_code == 200


# ---- the inbox


def test_read_without_javascript(app, client):
    bob, broadcast_id = client("bob"), publish(app)
    assert UNREAD in text_of(bob.get("/inbox"))
    response = bob.post(f"/inbox/{broadcast_id}/read")
    assert (response.status_code, response.location) == (303, "/inbox")
    assert UNREAD not in text_of(bob.get("/inbox"))
    assert bob.get("/inbox/count").json["unread"] == 0


def test_read_by_the_page_s_script_tells_what_changed(app, client):
    bob, broadcast_id = client("bob"), publish(app)
    response = bob.post(f"/inbox/{broadcast_id}/read", headers={"Accept": "application/json"})
    assert (response.status_code, response.json["kind"], response.json["ids"]) == (200, "read", [broadcast_id])
    assert (response.json["unread"], response.json["version"]) == (0, 1)
    assert UNREAD not in text_of(bob.get(f"/inbox/cards?ids={broadcast_id}"))


def test_mark_all_through_what_was_seen(app, client):
    """What arrived after the page was drawn stays unread."""
    bob = client("bob")
    publish(app)
    through = re.search(r'name="through" value="(\d+)"', text_of(bob.get("/inbox")))[1]
    later = publish(app, build_message(title="Later"))
    assert bob.post("/inbox/read-all", {"through": through}).status_code == 303
    assert bob.get("/inbox/count").json["unread"] == 1
    unread = text_of(bob.get("/inbox?view=unread"))
    assert f'id="card-{later}"' in unread
    for odd in ("", "x", "-1", "9" * 40, "\0"):
        assert bob.post("/inbox/read-all", {"through": odd}).status_code == 303
    assert bob.get("/inbox/count").json["unread"] == 1


def test_mark_all_keeps_the_filter_that_one_looks_at(client):
    response = client("bob").post("/inbox/read-all", {"through": "1", "view": "unread", "category": "News", "q": "a&b"})
    assert response.location == "/inbox?view=unread&category=News&q=a%26b"


@pytest.mark.parametrize(
    "query", ["view=x", "q=%25", "q=%00", "category=%00&priority=%00", "after=x", "after=" + "9" * 40, "after=1"]
)
def test_inbox_takes_any_query(app, client, query):
    publish(app)
    bob = client("bob")
    for path in ("/inbox", "/inbox/list"):
        assert bob.get(f"{path}?{query}").status_code == 200
        assert bob.get(f"{path}?{query}", headers={"HX-Request": "true"}).status_code == 200


def test_what_was_typed_is_shown_as_text(app, client):
    """Titles, categories and labels are text everywhere; the body is what Markdown became."""
    evil = '"><script>alert(1)</script>'
    link = {"label": evil[:40], "url": 'https://a.example/?"><script>'}
    broadcast_id = publish(app, build_message(title=evil, content=evil, category=evil, actions=[link]))
    for name, paths in {
        "alice": [
            "/console/",
            "/console/broadcasts",
            f"/console/broadcasts/{broadcast_id}",
            f"/console/broadcasts?q={evil}",
        ],
        "bob": ["/inbox", f"/inbox/{broadcast_id}", f"/inbox?q={evil}", f"/inbox?category={evil}"],
    }.items():
        for path in paths:
            page = client(name).get(path)
            assert page.status_code == 200
            assert "<script>alert" not in page.get_data(as_text=True), path
