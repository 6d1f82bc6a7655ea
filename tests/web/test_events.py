"""The webhook: the contract of Kafka over HTTP; the caller is told, so nothing is kept of what is refused."""

import json

import pytest

from broadcast.actions import gathering
from broadcast.domain.arrival import Cap
from broadcast.ingest.rules import Rule
from broadcast.store import dead_letters
from tests.acts import a_message, count_rows, to_role
from tests.ingest.records import POISON, SOURCE, a_cancel, an_event
from tests.web.doors import bearer

STRUCTURED = {"Content-Type": "application/cloudevents+json"}


@pytest.fixture
def program(app, client):
    """Posts one event as a program with the scope `events`; Charlie's token, who has no role."""
    client()
    headers, http = bearer(app, "charlie", ["events"]), app.test_client()

    def post(event, **more):
        data = event if isinstance(event, bytes) else json.dumps(event)
        return http.post("/api/events", data=data, headers=headers | STRUCTURED | more)

    return post


def test_event_is_accepted_with_the_address_of_its_broadcast(app, client, program):
    response = program(an_event(data=to_role("ops", title="Line 4")))
    assert response.status_code == 202
    headers = bearer(app, "alice", ["admin"])
    told = app.test_client().get(response.location, headers=headers).json
    assert (told["title"], told["senderName"], told["status"]) == ("Line 4", SOURCE, "ACTIVE")


def test_repeat_answers_200_with_the_same_address(program):
    first, second = program(an_event()), program(an_event())
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.location == second.location
    assert second.json["outcome"] == "repeated"


def test_binary_event_is_accepted(app, program):
    headers = {"ce-id": "caf%C3%A9", "ce-source": SOURCE, "ce-type": "broadcast.publish.v1", "ce-specversion": "1.0"}
    response = program(a_message(), **headers | {"Content-Type": "application/json"})
    assert response.status_code == 202


def test_recall_answers_with_the_broadcast_that_it_took_back(program):
    announced = program(an_event("1"))
    recalled = program(a_cancel("1"))
    assert (recalled.status_code, recalled.json["outcome"]) == (202, "cancelled")
    assert recalled.location == announced.location


HTTP_POISON = [row for row in POISON if row[1].value is not None and len(row[1].value) < 256 * 1024 and not row[1].key]


@pytest.mark.parametrize("row", HTTP_POISON, ids=[row[0] for row in HTTP_POISON])
def test_poison_is_answered_422_with_its_reason_and_leaves_nothing(app, program, row):
    """F08 through the web. Without a place to come from, even a bare message is refused."""
    _, record, _ = row
    with app.app_context():
        before = count_rows()
    headers = {name.title(): value.decode("latin-1") for name, value in record.headers}
    response = program(record.value, **headers)
    assert (response.status_code, response.mimetype) == (422, "application/problem+json")
    assert response.json["detail"].endswith(".")
    with app.app_context():
        assert count_rows() == before
        assert dead_letters.page(None) == []


def test_event_for_a_role_that_does_not_exist_is_answered_with_its_name(app, program):
    response = program(an_event(data=to_role("nosuchrole")))
    assert response.status_code == 422
    assert "nosuchrole" in response.json["detail"]


def test_more_than_a_request_may_carry_is_413(program):
    assert program(b"x" * (256 * 1024 + 1)).status_code == 413


@pytest.mark.parametrize("scopes", [["inbox"], ["admin"]])
def test_token_without_the_scope_is_refused(app, client, scopes):
    client()
    headers = bearer(app, "alice", scopes)
    response = app.test_client().post("/api/events", json=an_event(), headers=headers)
    assert response.status_code == 403
    assert "scope events" in response.json["detail"]


def test_browser_of_an_administrator_cannot_send_events(client):
    assert client("alice").send("POST", "/api/events", an_event()).status_code == 403


def test_event_with_the_key_of_a_live_card_answers_with_that_card(program):
    first = program(an_event("1", data=a_message(collapseKey="line-4")))
    second = program(an_event("2", data=a_message(collapseKey="line-4")))
    assert (second.status_code, second.json["outcome"]) == (202, "collapsed")
    assert second.location == first.location
    again = program(an_event("2", data=a_message(collapseKey="line-4")))
    assert (again.status_code, again.location) == (200, first.location)


def test_too_many_events_are_held_back_and_then_refused_with_when_to_come_back(app, program, monkeypatch):
    monkeypatch.setattr(gathering, "MOST_WAITING", 2)
    app.extensions["rules"] = (Rule(fits={"source": "*"}, cap=Cap(1, 60, "r")),)
    answers = [program(an_event(str(n), data=a_message(title=f"t{n}"))) for n in range(4)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
    assert [answer.json.get("outcome") for answer in answers[:3]] == ["published", "quarantined", "quarantined"]
    assert answers[3].headers["Retry-After"] == "60"
    assert "more than 1 broadcast in 60 s" in answers[3].json["detail"]
