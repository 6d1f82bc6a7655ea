"""The pages of escalation policies, the choice at compose, the timeline at review, and the ladder of a broadcast."""

from datetime import timedelta

import pytest

from broadcast.actions import users
from broadcast.channels import escalation
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import broadcasts, email_addresses, escalation_policies
from broadcast.store.transactions import write_transaction
from tests.support.builders import build_message, load_actor, publish_message
from tests.support.escalation import by_channel, set_policy, to_role

FORM = {"title": "Lifts", "content": "They stand.", "targetType": "ALL", "when": "now", "priority": "URGENT"}


@pytest.fixture
def alice(client):
    return client("alice")


@pytest.fixture
def bob_has_an_address(app, client):
    client("bob")
    with app.app_context(), write_transaction() as session:
        bob = load_actor("bob").user_id
        email_addresses.set_verified(session, bob, "bob@example.com", at=clock.now(), is_from_provider=False)


def test_policy_is_made_changed_and_deleted(app, alice):
    page = alice.get("/console/channels/escalation").text
    assert "Urgent" in page
    assert "after 2 minutes" in page
    steps = {"minutes0": "5", "awaits0": "READ", "way0": "channel:email"}
    steps |= {"minutes1": "60", "awaits1": "ACKNOWLEDGED", "way1": "role:ops"}
    form = {"name": "Night <b>", "default_for": ["HIGH"]} | steps
    page = alice.post("/console/channels/escalation", data=form, follow_redirects=True).text
    assert "Saved." in page
    assert "Night &lt;b&gt;" in page
    assert "Not acknowledged after 60 minutes:" in page
    assert "tell the role ops" in page
    with app.app_context():
        [night] = [row for row in escalation_policies.list_rows() if row.name == "Night <b>"]
        assert night.default_for == ["HIGH"]
    address = f"/console/channels/escalation/{night.id}"
    page = alice.get(address).text
    assert 'value="role:ops" selected' in page
    page = alice.post(address, data=form | {"name": "Day"}, follow_redirects=True).text
    assert "Day" in page
    assert "Night" not in page
    assert "Deleted." in alice.post(f"{address}/delete", follow_redirects=True).text
    assert alice.get(address).status_code == 404
    assert alice.post(f"{address}/delete").status_code == 404


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"minutes0": "x"}, "Type minutes from 0 to 10,080, and choose a way."),
        ({"minutes0": "٣"}, "Type minutes from 0 to 10,080, and choose a way."),
        ({"awaits0": "HEARD"}, "Type minutes from 0 to 10,080, and choose a way."),
        ({"way0": "drums:loud"}, "Type minutes from 0 to 10,080, and choose a way."),
        ({"way0": "channel:drums"}, "There is no channel drums here."),
        ({"way0": "role:nobody"}, "There is no role nobody."),
        ({"name": "urgent"}, "There is a policy urgent already."),
        ({"name": "\0"}, "Type a name of 1 to 40 characters."),
    ],
)
def test_mistakes_in_a_policy_are_said_at_their_place_and_what_was_typed_stays(alice, changes, sentence):
    form = {"name": "Night", "minutes0": "5", "awaits0": "READ", "way0": "channel:email"} | changes
    response = alice.post("/console/channels/escalation", data=form)
    assert response.status_code in (409, 422)
    assert sentence in response.text


def test_policy_with_a_channel_that_is_not_set_up_keeps_it(app, alice):
    with app.app_context():
        set_policy("URGENT", by_channel(1, "drums"), name="Old")
        [old] = [row for row in escalation_policies.list_rows() if row.name == "Old"]
    assert "drums (not set up here)" in alice.get("/console/channels/escalation").text
    form = {"name": "Old", "minutes0": "3", "awaits0": "SEEN", "way0": "channel:drums"}
    page = alice.post(f"/console/channels/escalation/{old.id}", data=form, follow_redirects=True).text
    assert "after 3 minutes" in page


@pytest.mark.usefixtures("bob_has_an_address")
def test_review_shows_who_is_reached_when_and_by_nothing(app, alice, client):
    with app.app_context():
        set_policy("URGENT", by_channel(2), to_role(30, "ops", awaits="READ"))
    page = alice.post("/console/review", data=FORM).text
    assert "Now: <strong>3 people</strong> by page" in page
    assert "After 2 minutes: <strong>1 person</strong> by e-mail" in page
    assert "After 30 minutes: tell the role ops" in page
    assert "<strong>2 people</strong> by nothing" in page
    names = page.split('class="unreached"')[1]
    assert ">Alice</a>" in names
    assert ">Charlie</a>" in names
    assert ">Bob</a>" not in names
    assert "do not hold urgent messages back" in page
    assert "No escalation" in alice.post("/console/review", data=FORM | {"escalation": "none"}).text
    assert (
        "There is no escalation policy Slow." in alice.post("/console/review", data=FORM | {"escalation": "Slow"}).text
    )


@pytest.mark.usefixtures("bob_has_an_address")
def test_review_counts_preferences_and_excluded_people(alice, client):
    client("bob").send("PUT", "/api/user/preferences", {"email": "NEVER"})
    page = alice.post("/console/review", data=FORM | {"exceptPeople": "charlie"}).text
    assert "After 2 minutes: <strong>0 people</strong> by e-mail" in page
    assert "<strong>2 people</strong> by nothing" in page
    page = alice.post("/console/review", data=FORM | {"targetType": "SELECTED", "people": "bob"}).text
    assert "<strong>1 person</strong> by nothing" in page


def test_names_of_who_is_reached_by_nothing_need_the_permission_for_users(app, client):
    writer = client("charlie")
    with app.app_context():
        users.set_roles(load_actor("charlie").user_id, ["author"], by=SYSTEM, now=clock.now())
    page = writer.post("/console/review", data=FORM).text
    assert "<strong>3 people</strong> by nothing" in page
    assert "unreached" not in page


@pytest.mark.usefixtures("bob_has_an_address")
def test_page_of_a_broadcast_shows_its_ladder(app, alice):
    with app.app_context():
        set_policy("URGENT", by_channel(0), by_channel(60, awaits="READ"))
        broadcast_id = publish_message(load_actor("alice"), build_message(priority="URGENT"))
        escalation.run_once(now=clock.now())
    page = alice.get(f"/console/broadcasts/{broadcast_id}").text
    assert "1 person, 1 waiting" in page
    assert "if not read" in page
    assert "Planned for" in page
    assert "Policy: Urgent." in page
    alice.post(f"/console/broadcasts/{broadcast_id}/cancel", data={"reason": "Wrong"})
    assert "Not needed: the broadcast has ended" in alice.get(f"/console/broadcasts/{broadcast_id}").text


def test_choice_is_stored_with_the_draft_and_by_the_api(app, alice):
    response = alice.post("/console/broadcasts", data=FORM | {"escalation": "none", "do": "save"})
    page = alice.get(response.headers["Location"]).text
    assert '<option value="none" selected>' in page
    body = {"title": "T", "content": "C", "targetType": "ALL", "escalation": "Urgent", "priority": "LOW"}
    created = alice.send("POST", "/api/admin/broadcasts", body)
    assert (created.status_code, created.json["escalation"]) == (201, "Urgent")
    with app.app_context():
        plan = broadcasts.get(created.json["id"]).escalation_plan
    assert plan["policy"] == "Urgent"
    refused = alice.send("POST", "/api/admin/broadcasts", body | {"escalation": "Slow"})
    assert (refused.status_code, "escalation" in refused.json["fields"]) == (422, True)
    address, change = f"/api/admin/broadcasts/{created.json['id']}", {"escalation": "none"}
    refused = alice.send("PATCH", address, change, headers={"If-Match": "*"})
    assert refused.status_code == 422


def test_scheduled_broadcast_may_still_be_changed(app, alice):
    at = clock.to_rfc3339(clock.now() + timedelta(hours=1))
    body = {"title": "T", "content": "C", "targetType": "ALL", "priority": "HIGH", "scheduledAt": at}
    created = alice.send("POST", "/api/admin/broadcasts", body)
    address = f"/api/admin/broadcasts/{created.json['id']}"
    changed = alice.send("PATCH", address, {"escalation": "none"}, headers={"If-Match": "*"})
    assert changed.json["escalation"] == "none"
