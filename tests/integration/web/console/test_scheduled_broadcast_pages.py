"""A scheduled broadcast that waits for a decision is shown on every page, with the possible actions."""

import html
from datetime import timedelta

import pytest

from broadcast.domain import clock
from broadcast.worker import scheduler
from tests.support.builders import build_message, load_actor, publish_message

NOW = clock.now()


def plan(app, *, is_to_be_acknowledged: bool = False, **times) -> int:
    """The id of a plan that was due an hour ago, with these other times in minutes from then."""
    due = NOW - timedelta(hours=1)
    wire = {name: clock.to_rfc3339(due + timedelta(minutes=minutes)) for name, minutes in times.items()}
    with app.app_context():
        raw = build_message(
            title="Lifts at nine", scheduledAt=clock.to_rfc3339(due), requiresAck=is_to_be_acknowledged, **wire
        )
        id = publish_message(load_actor("alice"), raw, now=due - timedelta(hours=1))
        scheduler.tick(NOW)
    return id


def text_of(answer) -> str:
    return html.unescape(answer.get_data(as_text=True))


def test_waiting_plan_is_on_the_overview_in_the_list_on_its_page_and_in_the_api(app, client):
    client()
    id, alice = plan(app), client("alice")
    overview, listed = text_of(alice.get("/console/")), text_of(alice.get("/console/broadcasts?filter=scheduled"))
    page = text_of(alice.get(f"/console/broadcasts/{id}"))
    assert "“Lifts at nine” was not sent." in overview
    assert f'href="/console/broadcasts/{id}">Decide</a>' in overview
    assert "Waiting for a decision." in listed
    assert "No scheduled broadcasts." in overview, "it is not due next any more"
    for words in (
        "waiting for a decision",
        "Its time passed while it could not be sent",
        "Send now",
        "Recall",
        "Edit",
    ):
        assert words in page
    assert alice.get(f"/api/admin/broadcasts/{id}").json["decisionReason"] == "OVERDUE"


def test_many_that_wait_are_counted(app, client):
    client()
    for _ in range(5):
        plan(app)
    assert "2 more scheduled broadcasts are waiting for a decision." in text_of(client("alice").get("/console/"))


@pytest.mark.parametrize("past", ["expiresAt", "ackDueAt"])
def test_what_says_something_that_is_past_cannot_be_sent_as_it_is(app, client, past):
    client()
    id, alice = plan(app, is_to_be_acknowledged=True, **{past: 30}), client("alice")
    page = text_of(alice.get(f"/console/broadcasts/{id}"))
    assert "choose another date" in page
    assert "Send now" not in page
    assert alice.post(f"/console/broadcasts/{id}/send").status_code == 409


def test_decision_is_made_on_the_page(app, client):
    client()
    id, alice = plan(app), client("alice")
    assert alice.post(f"/console/broadcasts/{id}/send").status_code == 303
    assert alice.get(f"/api/admin/broadcasts/{id}").json["status"] == "ACTIVE"
    assert "put it on hold until someone decides" in text_of(alice.get(f"/console/broadcasts/{id}"))
