"""Role pages: who has a role and what refers to it, and a warning about the effects before deletion."""

import re

import pytest

from broadcast.store import users
from tests.conftest import deliver_new_events
from tests.support.builders import build_message, build_role_message, count_rows, load_actor, publish_message
from tests.support.stream_reader import StreamReader


def text_of(response) -> str:
    return response.get_data(as_text=True)


def test_roles_are_listed_with_their_people_and_unended_broadcasts_even_those_nobody_has(app, client):
    alice = client("alice")
    with app.app_context():
        publish_message(load_actor("alice"), build_role_message("ops"))
        publish_message(load_actor("alice"), build_role_message("ops", draft=True))
    page = text_of(alice.get("/console/roles"))
    [row] = re.findall(r'<tr>(?:(?!</tr>).)*"/console/roles/ops".*?</tr>', page, re.S)
    assert re.findall(r"<td[^>]*>(?:<[^>]+>)*([\d,]+)", row) == ["1", "1", "0", "1"]
    assert '"/console/roles/auditor"' in page


def test_role_is_made_and_a_taken_name_keeps_the_form(app, client):
    alice = client("alice")
    assert alice.post("/console/roles", {"name": "night"}).status_code == 303
    again = alice.post("/console/roles", {"name": "Night"})
    assert again.status_code == 422
    assert 'value="Night"' in text_of(again)
    assert "There is a role night already" in text_of(again)


def test_role_is_renamed_and_a_refused_name_keeps_the_form(app, client):
    alice = client("alice")
    refused = alice.post("/console/roles/ops/rename", {"name": "no good"})
    assert refused.status_code == 422
    assert 'value="no good"' in text_of(refused)
    done = alice.post("/console/roles/ops/rename", {"name": "operations"})
    assert (done.status_code, done.location) == (303, "/console/roles/operations")
    assert alice.get("/console/roles/ops").status_code == 404
    assert "operations" in text_of(alice.get("/console/broadcasts/new"))


@pytest.mark.parametrize("path", ["rename", "delete"])
def test_built_in_role_is_refused_with_a_sentence(app, client, path):
    alice = client("alice")
    refused = alice.post(f"/console/roles/admin/{path}", {"name": "x", "understood": "yes"})
    assert refused.status_code == 409
    assert "cannot be renamed or deleted" in text_of(refused)
    assert f"/console/roles/admin/{path}" not in text_of(alice.get("/console/roles/admin"))


def test_page_names_what_deleting_means_and_asks_for_a_tick(app, client):
    alice = client("alice")
    with app.app_context():
        publish_message(load_actor("alice"), build_role_message("ops", title="To ops alone"))
        publish_message(load_actor("alice"), build_message(title="To all but ops", exceptRoles=["ops"]))
        before = count_rows()
    page = text_of(alice.get("/console/roles/ops"))
    assert re.search(r"To ops alone.*?Removed from every inbox", page, re.S)
    assert re.search(r"To all but ops.*?stay excluded by name", page, re.S)
    refused = alice.post("/console/roles/ops/delete")
    assert refused.status_code == 422
    assert "Confirm that you understand" in text_of(refused)
    with app.app_context():
        assert count_rows() == before
    assert alice.post("/console/roles/ops/delete", {"understood": "yes"}).status_code == 303
    with app.app_context():
        assert users.list_role_names() == ["admin"]


def test_unused_role_is_deleted_without_a_tick(app, client):
    alice = client("alice")
    alice.post("/console/roles", {"name": "night"})
    assert alice.post("/console/roles/night/delete").status_code == 303


@pytest.mark.parametrize("name", ["nobody", "ops~1", "%00", "a" * 300, "%E2%80%AE"])
def test_unknown_role_is_not_found(client, name):
    alice = client("alice")
    assert alice.get(f"/console/roles/{name}").status_code == 404
    assert alice.post(f"/console/roles/{name}/delete", {"understood": "yes"}).status_code == 404


def test_open_stream_of_a_role_that_changes_loads_its_list_and_follows_the_new_name(app, client):
    alice, bob = client("alice"), client("bob")
    stream = StreamReader(bob.http)
    stream.read_until("CONNECTED")
    alice.post("/console/roles/ops/rename", {"name": "operations"})
    deliver_new_events(app)
    assert stream.next_frame().event == "RESET"
    with app.app_context():
        sent = publish_message(load_actor("alice"), build_role_message("operations"))
    deliver_new_events(app)
    assert stream.next_frame().data["id"] == sent
    alice.post("/console/roles/operations/delete", {"understood": "yes"})
    deliver_new_events(app)
    assert stream.next_frame().event == "RESET"
    with app.app_context():
        everybody = publish_message(load_actor("alice"))
    deliver_new_events(app)
    assert stream.next_frame().data["id"] == everybody
    stream.close()


def test_cursor_from_before_a_change_of_a_role_is_answered_with_reset(app, client):
    alice, bob = client("alice"), client("bob")
    stream = StreamReader(bob.http)
    cursor = stream.read_until("CONNECTED")[-1].id
    stream.close()
    alice.post("/console/roles/ops/delete", {"understood": "yes"})
    deliver_new_events(app)
    again = StreamReader(bob.http, f"/api/sse/connect?after={cursor}")
    assert again.next_frame().event == "RESET"
    again.close()
