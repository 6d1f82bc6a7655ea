"""The JSON API of one's own inbox and preferences, beyond reading (`test_api`)."""

from datetime import timedelta

import pytest

from broadcast.domain import clock
from tests.integration.web.api.test_api import is_problem, publish
from tests.support.builders import build_message, build_role_message, count_rows
from tests.support.users import BrowserClient

VERBS = ("read", "unread", "archive", "unarchive", "acknowledge", "snooze")


def titles(person, view: str) -> list[str]:
    return [item["title"] for item in person.get(f"/api/user/messages?view={view}").json["items"]]


def act(person, verb: str, ids: list[int], **more):
    return person.send("POST", f"/api/user/messages/{verb}", {"broadcastIds": ids} | more)


def test_a7_every_verb_answers_with_the_new_count(app, client):
    bob = client("bob")
    one, two = publish(app, build_message(title="one", requiresAck=True)), publish(app, build_message(title="two"))
    assert act(bob, "acknowledge", [one]).json == {"unread": 1}
    assert act(bob, "unread", [one]).json == {"unread": 2}
    assert act(bob, "archive", [one]).json == {"unread": 1}
    until = clock.to_rfc3339(clock.now() + timedelta(hours=1))
    assert act(bob, "snooze", [two], until=until).json["unread"] == 0
    assert {v: titles(bob, v) for v in ("inbox", "unread", "archived", "snoozed", "all")} == {
        "inbox": [], "unread": [], "archived": ["one"], "snoozed": ["two"], "all": ["two", "one"],
    }  # fmt: skip
    first, second = bob.get("/api/user/messages?view=all").json["items"]
    assert (first["snoozedUntil"], first["read"], second["archivedAt"] is None) == (until, False, False)
    assert second["acknowledgedAt"] is not None
    assert act(bob, "unarchive", [one, two]).json == {"unread": 2}
    assert titles(bob, "inbox") == ["two", "one"]


@pytest.mark.parametrize("verb", VERBS)
def test_a7_message_of_others_is_not_found(app, client, verb):
    """I3"""
    theirs = publish(app, build_role_message("ops", requiresAck=True))
    charlie = client("charlie")
    with app.app_context():
        before = count_rows()
    more = {"until": clock.to_rfc3339(clock.now() + timedelta(hours=1))} if verb == "snooze" else {}
    is_problem(act(charlie, verb, [theirs], **more), 404)
    with app.app_context():
        assert count_rows() == before


@pytest.mark.parametrize("verb", VERBS)
def test_a7_odd_bodies_are_refused(app, client, verb):
    bob, path = client("bob"), f"/api/user/messages/{verb}"
    is_problem(bob.send("POST", path, {"broadcastIds": []}), 422, "broadcastIds")
    is_problem(bob.send("POST", path, {"broadcastIds": [1], "userId": 1, "until": "x"}), 422, *_unknown(verb))
    is_problem(bob.send("POST", path, []), 422, "body")


def _unknown(verb: str) -> set[str]:
    return {"userId"} if verb == "snooze" else {"userId", "until"}


@pytest.mark.parametrize(
    "until", [None, "", "soon", 5, "2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "2026-11-30T08:00"]
)
def test_a7_snooze_needs_a_time_ahead_with_its_zone(app, client, until):
    broadcast_id = publish(app)
    is_problem(act(client("bob"), "snooze", [broadcast_id], until=until), 422, "until")


def test_a7_conflict_says_why(app, client):
    broadcast_id = publish(app, build_message(requiresAck=True))
    problem = is_problem(act(client("bob"), "archive", [broadcast_id]), 409)
    assert problem["detail"] == "Acknowledge this message before you archive it."


def test_a6_unknown_view_is_refused(client):
    is_problem(client("bob").get("/api/user/messages?view=trash"), 422, "view")
    is_problem(client("bob").send("POST", "/api/user/messages/read-all", {"view": "trash"}), 422, "view")


# ---- preferences


def test_a8_preferences_are_put_whole_and_each_has_their_own(app, client):
    bob, path = client("bob"), "/api/user/preferences"
    assert bob.get(path).json["quietHours"] is None
    given = {"mutedCategories": ["News"], "quietHours": {"from": "00:00", "to": "23:59"}, "timeZone": "UTC"}
    response = bob.send("PUT", path, given)
    assert response.status_code == 200
    assert {name: response.json[name] for name in given} == given
    assert bob.get(path).json == response.json
    assert BrowserClient.for_user(app, "charlie").get(path).json["mutedCategories"] == []
    assert bob.send("PUT", path, {}).json["mutedCategories"] == []


def test_a8_what_is_wrong_is_named_and_nothing_is_saved(client):
    bob, path = client("bob"), "/api/user/preferences"
    bob.send("PUT", path, {"theme": "dark"})
    is_problem(bob.send("PUT", path, {"theme": "pink", "userId": 1}), 422, "theme", "userId")
    is_problem(bob.send("PUT", path, []), 422, "body")
    assert bob.get(path).json["theme"] == "dark"


def test_a8_mandatory_category_cannot_be_muted(make_app, client):
    client()  # the cast exists
    bob = BrowserClient.for_user(make_app(mandatory_categories=["Safety"]), "bob")
    problem = is_problem(
        bob.send("PUT", "/api/user/preferences", {"mutedCategories": ["Safety"]}), 422, "mutedCategories"
    )
    assert "everyone must be alerted" in problem["fields"]["mutedCategories"]
    assert "Cannot be muted" in bob.get("/preferences").get_data(as_text=True)


def test_d11_quiet_hours_hold_the_alert_and_never_the_message(app, client):
    """The message is in the list at once; only when it is told of is put off."""
    bob = client("bob")
    pause = {"doNotDisturbUntil": clock.to_rfc3339(clock.now() + timedelta(hours=1))}
    assert bob.send("PUT", "/api/user/preferences", pause).json["heldUntil"] == pause["doNotDisturbUntil"]
    publish(app, build_message(title="at night", priority="HIGH"))
    assert titles(bob, "unread") == ["at night"]
    assert bob.get("/inbox/alerts").json["heldUntil"] == pause["doNotDisturbUntil"]
