"""Broadcasts that reach many or interrupt everyone need confirmation from anyone with a session, on every path."""

import json

import pytest

from broadcast.actions import accounts, inbound_events, tokens
from broadcast.actions import users as people_actions
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.domain.inbound import InboundEvent
from broadcast.ingest import contract
from broadcast.store import broadcasts, dead_letters, users
from tests.support.builders import build_message, build_role_message, build_user_message, load_actor, publish_message
from tests.support.inbound_records import build_bare_record, build_cloud_event
from tests.support.users import BrowserClient

PASSWORD = "a long enough one"
API = "/api/admin/broadcasts"
URGENT = build_message(priority="URGENT")
CONFIRM = {"people": 3, "password": PASSWORD}
ANY = {"If-Match": "*"}


@pytest.fixture
def alice(app, client):
    client()
    with app.app_context():
        accounts.set_password(load_actor("alice").user_id, PASSWORD, by=SYSTEM, now=clock.now())
    return BrowserClient.for_user(app, "alice")


def refused(answer) -> dict:
    assert answer.status_code == 422
    assert answer.json["fields"].keys() == {"confirm"}
    return answer.json["confirm"]


def sent(app) -> list[str]:
    with app.app_context():
        return [row.title for row in broadcasts.list_page("active")]


def bury(app) -> int:
    """Let a record arrive that becomes a dead letter; return its id."""
    with app.app_context():
        now, record = clock.now(), build_bare_record(b"{", offset=7)
        by = inbound_events.get_ingest_actor(now=now)
        inbound_events.ingest([InboundEvent(record, contract.read_command(record, now=now))], by=by, now=now)
        return dead_letters.get_newest_id()


def test_call_of_a_page_script_is_asked_for_the_number_and_the_password(app, alice):
    assert refused(alice.send("POST", API, URGENT)) == {"people": 3, "password": True}
    for wrong in ({"people": 3}, {"people": 2, "password": PASSWORD}, {"people": 3, "password": "guess guess"}):
        refused(alice.send("POST", API, URGENT | {"confirm": wrong}))
    assert sent(app) == []
    assert alice.send("POST", API, URGENT | {"confirm": CONFIRM}).status_code == 201


@pytest.mark.parametrize(
    "wrong", [[], "x", {"people": "3"}, {"understood": True}, {"password": 1}, {"password": "\ud800"}]
)
def test_confirmation_that_cannot_be_read_is_no_confirmation(alice, wrong):
    answer = alice.http.post(
        API,
        data=json.dumps(URGENT | {"confirm": wrong}),
        content_type="application/json",
        headers={"X-CSRFToken": alice._get_csrf_token()},
    )
    assert answer.status_code == 422


def test_program_with_a_token_is_not_asked(app, alice):
    with app.app_context():
        token = tokens.create_token(
            users.get_by_username("alice").id, scopes=["admin"], label="Pager", by=SYSTEM, now=clock.now()
        )
    headers = {"Authorization": f"Bearer {token}"}
    assert app.test_client().post(API, json=URGENT, headers=headers).status_code == 201


@pytest.mark.parametrize("changes", [{"priority": "URGENT"}, {"priority": "URGENT", "notifyAgain": True}])
def test_raising_the_priority_of_what_is_live_is_confirmed(alice, changes):
    id = alice.send("POST", API, build_message()).json["id"]
    assert refused(alice.send("PATCH", f"{API}/{id}", changes, headers=ANY))["password"]
    assert alice.get(f"{API}/{id}").json["priority"] == "NORMAL"
    assert alice.send("PATCH", f"{API}/{id}", changes | {"confirm": CONFIRM}, headers=ANY).status_code == 200


def test_alarming_again_is_confirmed_and_correcting_quietly_is_not(alice):
    id = alice.send("POST", API, URGENT | {"confirm": CONFIRM}).json["id"]
    assert alice.send("PATCH", f"{API}/{id}", {"title": "Quiet"}, headers=ANY).status_code == 200
    refused(alice.send("PATCH", f"{API}/{id}", {"title": "Loud", "notifyAgain": True}, headers=ANY))
    loud = {"title": "Loud", "notifyAgain": True, "confirm": CONFIRM}
    assert alice.send("PATCH", f"{API}/{id}", loud, headers=ANY).status_code == 200


@pytest.mark.parametrize("changes", [{"targetType": "ALL", "targetIds": None}, {"title": "Another"}])
def test_plan_is_confirmed_as_it_will_be_sent(alice, changes):
    plan = build_role_message("ops", priority="URGENT", scheduledAt="2030-01-01T10:00:00Z")
    if "title" in changes:
        plan = URGENT | {"scheduledAt": "2030-01-01T10:00:00Z"}
    people = 1 if plan["targetType"] == "ROLE" else 3
    id = alice.send("POST", API, plan | {"confirm": CONFIRM | {"people": people}}).json["id"]
    assert refused(alice.send("PATCH", f"{API}/{id}", changes, headers=ANY)) == {"people": 3, "password": True}
    assert alice.send("PATCH", f"{API}/{id}", changes | {"confirm": CONFIRM}, headers=ANY).status_code == 200


def test_draft_is_confirmed_when_it_is_sent_and_not_while_it_is_written(alice):
    id = alice.send("POST", API, URGENT | {"draft": True}).json["id"]
    assert alice.send("PATCH", f"{API}/{id}", {"title": "Other"}, headers=ANY).status_code == 200


@pytest.mark.parametrize("undo_seconds", [0, 10])
def test_plan_of_somebody_else_is_confirmed_by_who_releases_it(make_app, alice, undo_seconds):
    app = make_app(undo_seconds=undo_seconds)
    with app.app_context():
        id = publish_message(load_actor("alice"), URGENT | {"scheduledAt": "2030-01-01T10:00:00Z"})
    path = f"/console/broadcasts/{id}/send"
    alice = BrowserClient.for_user(app, "alice")
    asked = alice.post(path)
    assert asked.status_code == 422
    assert all(words in asked.get_data(as_text=True) for words in ("3 people", "Your password", f'action="{path}"'))
    assert alice.post(path, {"understood": "yes", "password": "guess"}).status_code == 422
    assert alice.post(path, {"understood": "yes", "password": PASSWORD}).status_code == 303
    with app.app_context():
        assert broadcasts.get(id).is_held == bool(undo_seconds)


def test_edit_page_of_what_is_live_asks_and_keeps_what_was_typed(alice):
    id = alice.send("POST", API, build_message()).json["id"]
    form = {"live": "yes", "version": "1-ACTIVE", "title": "Louder", "content": "C", "priority": "URGENT", "do": "send"}
    asked = alice.post(f"/console/broadcasts/{id}/edit", form)
    assert asked.status_code == 422
    assert all(words in asked.get_data(as_text=True) for words in ("Louder", "Your password", "understood"))
    confirmed = form | {"understood": "yes", "password": PASSWORD}
    assert alice.post(f"/console/broadcasts/{id}/edit", confirmed).status_code == 303
    assert alice.get(f"{API}/{id}").json["priority"] == "URGENT"


def test_dead_letter_redriven_by_hand_is_confirmed_and_in_bulk_left_behind(app, alice):
    letter_id = bury(app)
    urgent = json.dumps(build_cloud_event(data=URGENT))
    path = f"/console/dead-letters/{letter_id}/redrive"
    asked = alice.post(path, {"value": urgent})
    assert asked.status_code == 422
    assert "Your password" in asked.get_data(as_text=True)
    assert sent(app) == []
    refused(alice.send("POST", f"/api/admin/dlt/{letter_id}/redrive", {"value": urgent}))
    assert alice.post(path, {"value": urgent, "understood": "yes", "password": PASSWORD}).status_code == 303
    assert sent(app) == [URGENT["title"]]


def test_editing_by_the_form_keeps_that_it_signs_people_out(app, alice):
    with app.app_context():
        plan = build_user_message("bob", scheduledAt="2030-01-01T10:00:00Z", closeSessions=True)
        id = publish_message(load_actor("alice"), plan)
        people_actions.create_user("dora", None, roles=["author"], by=SYSTEM, now=clock.now())
    form = {"title": "Bye", "content": "C", "targetType": "SELECTED", "people": "bob", "when": "later", "do": "send"}
    form |= {"scheduledAt": "2030-01-01T10:00", "timeZone": "UTC", "version": "1-SCHEDULED"}
    path = f"/console/broadcasts/{id}/edit"
    assert BrowserClient.for_user(app, "dora").post(path, form).status_code == 403
    assert alice.post(path, form | {"targetType": "ALL"}).status_code == 422
    assert alice.post(path, form).status_code == 303
    with app.app_context():
        assert broadcasts.get(id).close_sessions
    assert "signs people out" in alice.get(path).get_data(as_text=True)
