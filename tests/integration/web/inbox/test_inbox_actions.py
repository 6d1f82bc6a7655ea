"""Inbox actions by plain forms, and the responses for the page's script."""

import re
from datetime import timedelta

import pytest

from broadcast.domain import clock
from broadcast.streams.receipt_buffer import RECEIPT_BUFFER
from tests.integration.web.api.test_api import publish
from tests.integration.web.console.test_plain_forms import text_of
from tests.support.builders import build_message, build_role_message

SCRIPT = {"Accept": "application/json"}


def cards(person, query: str = "") -> list[int]:
    return [int(n) for n in re.findall(r'id="card-(\d+)"', text_of(person.get(f"/inbox{query}")))]


def counts(person) -> dict[str, int]:
    return person.get("/inbox/count").json["counts"]


def test_every_verb_leads_back_to_the_list_it_was_pressed_in(app, client):
    bob, broadcast_id = client("bob"), publish(app, build_message(requiresAck=True))
    for verb in ("read", "unread", "acknowledge"):
        response = bob.post(f"/inbox/{broadcast_id}/{verb}", {"back": "/inbox?view=unread&category=a%26b"})
        assert (response.status_code, response.location) == (303, "/inbox?view=unread&category=a%26b")
    for evil in (
        "https://evil.example/inbox",
        "//evil.example/inbox",
        "/console/",
        "javascript:alert(1)",
        "/inbox\r\nX: 1",
    ):
        assert bob.post(f"/inbox/{broadcast_id}/read", {"back": evil}).location.startswith("/inbox")
        assert "evil" not in bob.post(f"/inbox/{broadcast_id}/read", {"back": evil}).location


def test_archive_and_undo_without_javascript(app, client):
    bob, broadcast_id = client("bob"), publish(app)
    response = bob.post(f"/inbox/{broadcast_id}/archive", {"back": "/inbox"})
    assert cards(bob) == []
    assert cards(bob, "?view=archived") == [broadcast_id]
    notice = text_of(bob.get(response.location))
    assert "1 message archived" in notice
    key = re.search(r'name="key" value="(\w+)"', notice)[1]
    assert bob.post("/inbox/undo", {"key": key}).status_code == 303
    assert cards(bob) == [broadcast_id]
    assert bob.post("/inbox/undo", {"key": key}).status_code == 409
    assert bob.get("/inbox?done=<b>-1-x").status_code == bob.get("/inbox?done=a-b").status_code == 200


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"preset": "hour"}, 303), ({"preset": "tomorrow", "timeZone": "Asia/Tokyo"}, 303), ({"preset": "never"}, 422),
        ({"until": "2020-01-01T00:00"}, 422), ({"until": "x"}, 422), ({}, 422), ({"preset": "hour", "timeZone": "Moon"}, 422),
    ],
)  # fmt: skip
def test_snooze_by_preset_or_own_time(app, client, form, status):
    bob, broadcast_id = client("bob"), publish(app)
    assert bob.post(f"/inbox/{broadcast_id}/snooze", form).status_code == status
    assert counts(bob)["snoozed"] == (status == 303)


def test_snooze_at_own_time_is_meant_in_the_own_zone(app, client):
    bob, broadcast_id = client("bob"), publish(app)
    moment = (clock.now() + timedelta(days=3)).strftime("%Y-%m-%dT12:00")
    bob.post(f"/inbox/{broadcast_id}/snooze", {"until": moment, "timeZone": "Asia/Tokyo"})
    [item] = bob.get("/api/user/messages?view=snoozed").json["items"]
    assert item["snoozedUntil"] == f"{moment[:10]}T03:00:00.000Z"


def test_chosen_messages_are_done_together(app, client):
    bob = client("bob")
    ids = [publish(app) for _ in range(3)]
    assert bob.post("/inbox/chosen", {"verb": "archive", "ids": [str(n) for n in ids[:2]]}).status_code == 303
    assert counts(bob) == {"inbox": 1, "unread": 1, "archived": 2, "snoozed": 0, "ended": 0}
    for form in (
        {"verb": "archive"},
        {"verb": "burn", "ids": "1"},
        {"ids": str(ids[2])},
        {"verb": "read", "ids": ["x"]},
    ):
        assert bob.post("/inbox/chosen", form).status_code == 422


def test_script_hears_what_changed_the_counts_and_the_version(app, client):
    bob, broadcast_id = client("bob"), publish(app)
    answer = bob.post(f"/inbox/{broadcast_id}/archive", headers=SCRIPT).json
    assert (answer["kind"], answer["ids"], answer["version"]) == ("archived", [broadcast_id], 1)
    assert answer["counts"] == {"inbox": 0, "unread": 0, "archived": 1, "snoozed": 0}
    undone = bob.post("/inbox/undo", {"key": answer["undo"]}, headers=SCRIPT).json
    assert (undone["kind"], undone["version"], undone["counts"]["inbox"]) == ("undone", 2, 1)
    refused = bob.post("/inbox/undo", {"key": answer["undo"]}, headers=SCRIPT)
    assert (refused.status_code, refused.json["detail"]) == (409, "It is too late to undo that.")


def test_some_cards_are_those_that_the_view_and_its_filters_show_now(app, client):
    """I3, I11: what a page is not sent it takes away."""
    bob = client("bob")
    mine, news, theirs = (
        publish(app),
        publish(app, build_message(category="News")),
        publish(app, build_role_message("admin")),
    )
    gone = publish(app)
    bob.post(f"/inbox/{gone}/archive")

    def shown(query: str) -> list[int]:
        page = text_of(bob.get(f"/inbox/cards?ids={mine},{news},{theirs},{gone},9,x,&{query}"))
        return [int(n) for n in re.findall(r'id="card-(\d+)"', page)]

    assert shown("") == [news, mine]
    assert shown("category=News") == [news]
    assert shown("view=archived") == [gone]
    assert shown("view=all") == [gone, news, mine]


def test_seen_is_neither_read_nor_told_and_only_of_ones_own(app, client):
    bob, mine, theirs = client("bob"), publish(app), publish(app, build_role_message("admin"))
    assert bob.post("/inbox/seen", {"ids": f"{mine},{theirs},x"}).status_code == 204
    assert bob.post("/inbox/seen", {"ids": ""}).status_code == 204
    with app.app_context():
        RECEIPT_BUFFER.of(app).flush(clock.now())
    alice = type(bob).for_user(app, "alice")
    assert alice.get(f"/api/admin/broadcasts/{mine}/stats").json["seen"] == 1
    assert alice.get(f"/api/admin/broadcasts/{theirs}/stats").json["seen"] == 0
    assert (bob.get("/inbox/count").json["version"], counts(bob)["unread"]) == (0, 1)


def test_what_must_be_acknowledged_is_pinned_and_not_listed_twice(app, client):
    bob = client("bob")
    late = publish(app, build_message(requiresAck=True, ackDueAt="2098-01-02T00:00:00Z"))
    soon = publish(app, build_message(requiresAck=True, ackDueAt="2098-01-01T00:00:00Z"))
    plain = publish(app)
    assert cards(bob) == [soon, late, plain]
    bob.post(f"/inbox/{soon}/acknowledge")
    assert cards(bob) == [late, plain, soon]


def test_alerts_wait_until_they_were_in_view(app, client):
    bob = client("bob")
    low, high = publish(app), publish(app, build_message(priority="HIGH"))
    urgent = publish(app, build_message(priority="URGENT", requiresAck=True))
    assert bob.get("/inbox/alerts").json["waiting"] == [urgent, high]
    bob.post("/inbox/seen", {"ids": f"{low},{high},{urgent}"})
    with app.app_context():
        RECEIPT_BUFFER.of(app).flush(clock.now())
    assert bob.get("/inbox/alerts").json["waiting"] == [urgent]
    bob.post(f"/inbox/{urgent}/acknowledge")
    assert bob.get("/inbox/alerts").json["waiting"] == []


# ---- preferences


def test_preferences_by_plain_form(client):
    bob = client("bob")
    form = {
        "minimumPriority": "HIGH",
        "muted": ["News"],
        "quiet": "on",
        "from": "22:00",
        "to": "07:00",
        "theme": "dark",
    }
    response = bob.post("/preferences", form | {"timeZone": "Europe/Berlin", "reading": "manual"})
    assert (response.status_code, response.location) == (303, "/preferences?saved=1")
    saved = bob.get("/api/user/preferences").json
    assert (saved["minimumPriority"], saved["mutedCategories"], saved["keys"]) == ("HIGH", ["News"], False)
    assert saved["quietHours"] == {"from": "22:00", "to": "07:00"}
    page = text_of(bob.get("/preferences"))
    assert 'data-theme="dark"' in page
    assert re.search(r'value="News" checked', page)


def test_mistakes_in_preferences_keep_what_was_typed(client):
    bob = client("bob")
    response = bob.post(
        "/preferences", {"quiet": "on", "from": "22:00", "to": "22:00", "theme": "dark", "muted": "Mine"}
    )
    assert response.status_code == 422
    assert "must start and end at different times" in text_of(response)
    assert re.search(r'value="dark" checked', text_of(response))
    assert bob.get("/api/user/preferences").json["theme"] == "system"


@pytest.mark.parametrize(("name", "held"), [("30", True), ("60", True), ("tomorrow", True), ("off", False)])
def test_do_not_disturb_for_a_while(client, name, held):
    bob = client("bob")
    bob.post("/preferences", {"theme": "dark"})
    bob.post("/preferences/pause", {"for": "60"})
    assert bob.post("/preferences/pause", {"for": name}).status_code == 303
    saved = bob.get("/api/user/preferences").json
    assert ((saved["heldUntil"] is not None), saved["theme"]) == (held, "dark")
    assert bob.post("/preferences/pause", {"for": "ever"}).status_code == 422
