"""Drafts are limited in number and size, and lists read no bodies: not of drafts, dead letters or named audiences."""

from collections.abc import Iterator

import pytest
from sqlalchemy import event

from broadcast.actions import library
from broadcast.domain import clock
from broadcast.store import broadcasts
from broadcast.store.database import db
from tests.support.builders import build_message, load_actor, publish_message

URL = "/console/broadcasts"
FORM = {"title": "T", "content": "C", "targetType": "ALL", "priority": "NORMAL", "when": "now"}
BODIES = ("broadcasts.content,", "broadcasts.content ", "content_html", "broadcasts.typed", "dead_letters.value")


@pytest.fixture
def statements(app) -> Iterator[list[str]]:
    found: list[str] = []

    def note(_connection, _cursor, statement, *_):
        found.append(statement.replace("\n", " "))

    with app.app_context():
        event.listen(db.engine, "before_cursor_execute", note)
        yield found
        event.remove(db.engine, "before_cursor_execute", note)


@pytest.fixture
def one_draft(make_app):
    return make_app(drafts_per_user=1)


@pytest.mark.parametrize(
    "path",
    ["/console/", URL, f"{URL}?filter=draft", f"{URL}?part=rows", "/console/broadcasts.csv", "/console/dead-letters"],
)
def test_list_reads_no_body(app, client, statements, path):
    alice = client("alice")
    alice.post("/console/drafts", FORM)
    with app.app_context():
        publish_message(load_actor("alice"), build_message(requiresAck=True))
    statements.clear()
    assert alice.get(path).get_data()
    assert statements
    assert [statement for statement in statements if any(body in f"{statement} " for body in BODIES)] == []


def test_list_of_the_interface_reads_no_form(client, statements):
    alice = client("alice")
    alice.post("/console/drafts", FORM)
    statements.clear()
    assert alice.get("/api/admin/broadcasts").json["items"][0]["content"] == "C"
    assert [statement for statement in statements if "broadcasts.typed" in statement] == []


def test_named_audiences_are_listed_without_the_people_they_name(app, client, statements):
    alice = client("alice")
    with app.app_context():
        by, now = load_actor("alice"), clock.now()
        library.save_audience("Two", {"targetType": "SELECTED", "targetIds": ["bob", "charlie"]}, by=by, now=now)
        library.save_audience("Ops", {"targetType": "ROLE", "targetIds": ["ops"], "exceptIds": ["bob"]}, by=by, now=now)
        library.save_audience("All", {"targetType": "ALL", "exceptRoles": ["ops"]}, by=by, now=now)
    statements.clear()
    shown = " ".join(alice.get("/console/library").get_data(as_text=True).split())
    assert "2 people by name" in shown
    assert "Any of the roles ops, except 1 person by name" in shown
    assert "Everyone, except the roles ops" in shown
    page = alice.get(f"{URL}/new").get_data(as_text=True)
    assert "charlie" not in page
    assert 'data-audience="/console/library/audiences/1"' in page
    assert alice.get("/console/library/audiences/1").json["targetIds"] == ["bob", "charlie"]
    assert alice.get("/console/library/audiences/99").status_code == 404
    whole = [s for s in statements if "saved_audiences.target," in s.replace("(saved_audiences.target,", "")]
    assert [s for s in whole if "WHERE saved_audiences.id =" not in s] == []


def test_drafts_of_one_person_are_bounded_with_a_sentence_and_nothing_typed_is_lost(one_draft, client):
    from tests.support.users import BrowserClient

    client()
    alice, bob = BrowserClient.for_user(one_draft, "alice"), BrowserClient.for_user(one_draft, "bob")
    first = alice.post("/console/drafts", FORM)
    assert first.status_code == 200
    saved = {"broadcastId": first.json["id"], "version": first.json["version"]}
    assert alice.post("/console/drafts", FORM | saved).status_code == 200  # the same one, once more
    refused = alice.post("/console/drafts", FORM)
    assert refused.status_code == 422
    assert "reached the limit for drafts" in refused.json["problem"]
    page = alice.post(URL, FORM | {"title": "Kept words", "do": "save"})
    assert page.status_code == 422
    assert "Kept words" in page.get_data(as_text=True)
    assert "reached the limit for drafts" in page.get_data(as_text=True)
    assert alice.send("POST", "/api/admin/broadcasts", json=build_message(draft=True)).status_code == 422
    assert alice.send("POST", "/api/admin/broadcasts", json=build_message()).status_code == 201
    assert alice.post(f"{URL}/{first.json['id']}/duplicate").status_code == 422
    assert alice.post(f"{URL}/{first.json['id']}/delete").status_code == 303
    assert alice.post("/console/drafts", FORM).status_code == 200
    assert bob.post("/console/drafts", FORM).status_code == 403


@pytest.mark.parametrize(
    ("field", "length"),
    [("title", 1001), ("content", 32_769), ("category", 201), ("url1", 4001), ("people", 1_000_001)],
)
def test_field_far_too_long_is_refused_and_not_cut(app, client, field, length):
    alice = client("alice")
    refused = alice.post("/console/drafts", FORM | {field: "x" * length})
    assert refused.status_code == 422
    assert f"{length:,} characters" in refused.json["problem"]
    kept = alice.post("/console/drafts", FORM | {field: "x" * (length - 1)})
    with app.app_context():
        assert len(broadcasts.get(kept.json["id"]).typed[field]) == length - 1


def test_file_of_the_list_is_made_piece_by_piece_in_its_order(app, client, monkeypatch):
    monkeypatch.setattr("broadcast.web.console.broadcasts.listing._CHUNK_ROWS", 2)
    with app.app_context():
        client()
        ids = [publish_message(load_actor("alice"), build_message(title=f"No {n}")) for n in range(5)]
    answer = client("alice").http.get("/console/broadcasts.csv?sort=oldest", buffered=False)
    pieces = list(answer.response)
    assert len(pieces) == 4
    lines = b"".join(pieces).decode("utf-8-sig").splitlines()
    assert [line.split(",")[0] for line in lines] == ["id", *map(str, ids)]
