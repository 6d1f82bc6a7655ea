"""STATS_PER_RECIPIENT=0: no console page reveals whether one person has read a message."""

import re
from datetime import timedelta

import pytest
from flask import Flask

from broadcast.actions import receipts
from broadcast.actions import users as actions
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.domain.stats import MIN_GROUP_SIZE
from broadcast.store import broadcasts
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction
from tests.conftest import add_test_users
from tests.integration.web.console.test_plain_forms import text_of
from tests.support.builders import build_message, build_user_message, load_actor, publish_message
from tests.support.users import BrowserClient

PATHS = [
    "/console/",
    "/console/broadcasts",
    "/console/broadcasts?part=rows",
    "/console/broadcasts.csv",
    "/console/broadcasts/{}",
    "/console/broadcasts/{}/stats",
    "/console/broadcasts/{}/figures",
    "/console/broadcasts/{}/figures?show=done",
    "/console/broadcasts/{}/figures?show=gone",
    "/console/audit",
    "/api/admin/broadcasts",
    "/api/admin/broadcasts/{}",
    "/api/admin/broadcasts/{}/stats",
]
REFUSED = [
    "/console/broadcasts/{}/missing",
    "/console/broadcasts/{}/figures.csv",
    "/console/broadcasts/{}/acknowledged/1",
    "/api/admin/broadcasts/{}/deliveries",
    "/api/admin/broadcasts/{}/deliveries?format=csv",
    "/api/admin/broadcasts/{}/revisions",
]
_CHANGES = [
    (r'(name="csrf_token" value=|data-csrf=|"X-CSRFToken":)"[^"]*"', ""),
    (r"<time .*?</time>", "<time>"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "then"),
    (r'"asOf":\s*\d+|data-(unread|as-of|version|session)="\d+"', ""),
]


@pytest.fixture
def app(make_app) -> Flask:
    app = make_app(stats_per_recipient=False)
    with app.app_context():
        add_test_users()
        for n in range(2 * MIN_GROUP_SIZE):
            actions.create_user(f"p{n}", None, roles=["crew"], by=SYSTEM, now=clock.now())
    return app


def looks(app: Flask, broadcast_id: int, username: str = "alice") -> dict[str, str]:
    """What somebody of the console sees, without what changes by itself."""
    person, found = BrowserClient.for_user(app, username), {}
    for path in PATHS:
        text = text_of(person.get(path.format(broadcast_id)))
        for pattern, other in _CHANGES:
            text = re.sub(pattern, other, text)
        found[path] = text
    return found


def publish(app: Flask, *names: str) -> int:
    raw = build_user_message(*names, requiresAck=True, ackDueAt=clock.to_rfc3339(clock.now() + timedelta(hours=1)))
    with app.app_context():
        broadcast_id = publish_message(load_actor("alice"), raw)
        with write_transaction() as session:  # its day has passed, so that the overview looks at it
            session.get(Broadcast, broadcast_id).ack_due_at = clock.now() - timedelta(minutes=5)
    return broadcast_id


def acknowledge(app: Flask, broadcast_id: int, *names: str) -> None:
    with app.app_context():
        for name in names:
            receipts.acknowledge([broadcast_id], by=load_actor(name), now=clock.now())


@pytest.mark.parametrize("people", [1, 2, 2 * MIN_GROUP_SIZE - 1])
def test_of_few_people_nothing_tells_whether_they_have_read(app, people):
    """Nobody, one, everybody: all the same."""
    names = [f"p{n}" for n in range(people)]
    broadcast_id = publish(app, *names)
    before = looks(app, broadcast_id)
    acknowledge(app, broadcast_id, names[0])
    assert looks(app, broadcast_id) == before
    acknowledge(app, broadcast_id, *names)
    assert looks(app, broadcast_id) == before


def test_of_more_people_neither_the_first_few_nor_the_last_few_can_be_told(app):
    names = [f"p{n}" for n in range(2 * MIN_GROUP_SIZE)]
    broadcast_id = publish(app, *names)
    nobody = looks(app, broadcast_id)
    acknowledge(app, broadcast_id, *names[: MIN_GROUP_SIZE - 1])
    assert looks(app, broadcast_id) == nobody
    acknowledge(app, broadcast_id, names[MIN_GROUP_SIZE - 1])
    half = looks(app, broadcast_id)
    assert "or more</span>" in half["/console/broadcasts/{}/stats"]
    acknowledge(app, broadcast_id, *names)
    assert looks(app, broadcast_id) == half


@pytest.mark.parametrize("path", REFUSED)
def test_what_is_about_persons_is_refused(app, path):
    broadcast_id = publish(app, "p0")
    acknowledge(app, broadcast_id, "p0")
    assert BrowserClient.for_user(app, "alice").get(path.format(broadcast_id)).status_code == 403


@pytest.mark.parametrize("has_read", [True, False])
def test_reminding_says_the_same_whether_anybody_is_missing(app, has_read):
    broadcast_id = publish(app, "p0")
    if has_read:
        acknowledge(app, broadcast_id, "p0")
    alice = BrowserClient.for_user(app, "alice")
    answer = alice.send("POST", f"/api/admin/broadcasts/{broadcast_id}/remind")
    assert (answer.status_code, answer.json) == (200, {"reminded": None})
    assert "people" not in text_of(alice.get("/console/audit")).split("reminded")[1][:80]
    with app.app_context():
        assert broadcasts.list_audit_entries(broadcast_id)[-1].detail == {}


def test_roles_are_not_told_beside_the_whole(app):
    with app.app_context():
        broadcast_id = publish_message(load_actor("alice"), build_message())
    page = looks(app, broadcast_id)["/console/broadcasts/{}/figures"]
    assert "crew" not in page
    assert "By role" not in page


def test_viewer_who_may_not_see_who_has_read_is_told_as_little(app):
    """The same rule where the system tells persons, but not to everybody."""
    SETTINGS.attach(app, SETTINGS.of(app).model_copy(update={"stats_per_recipient": True}))
    with app.app_context():
        actions.set_roles(load_actor("bob").user_id, ["viewer"], by=SYSTEM, now=clock.now())
    broadcast_id = publish(app, "p0")
    before = {path: text for path, text in looks(app, broadcast_id, "bob").items() if path != "/console/audit"}
    acknowledge(app, broadcast_id, "p0")
    assert {path: looks(app, broadcast_id, "bob")[path] for path in before} == before
    told = BrowserClient.for_user(app, "alice").get(f"/api/admin/broadcasts/{broadcast_id}/stats").json
    assert told["acknowledged"] == 1
