"""Snoozing until a time in the preferred zone, which is named; never beyond the message's expiry."""

import html
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from broadcast.domain import clock
from tests.support.builders import build_message, load_actor, publish_message
from tests.support.users import BrowserClient

NOW = datetime(2026, 10, 20, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def at_noon(monkeypatch):
    monkeypatch.setattr(clock, "now", lambda: NOW)


@pytest.fixture
def bob(app, client) -> BrowserClient:
    """Bob, who lives in Tokyo as his preferences say."""
    bob = client("bob")
    assert bob.send("PUT", "/api/user/preferences", {"timeZone": "Asia/Tokyo"}).status_code == 200
    return bob


def sent(app, **more) -> int:
    with app.app_context():
        return publish_message(load_actor("alice"), build_message(**more), now=NOW)


def asleep_until(bob: BrowserClient) -> str | None:
    items = bob.get("/api/user/messages?view=snoozed").json["items"]
    return items[0]["snoozedUntil"] if items else None


@pytest.mark.parametrize("told", ["", "Europe/Berlin", "Asia/Tokyo", "Not/AZone"])
@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"preset": "tomorrow"}, "2026-10-20T23:00:00.000Z"),
        ({"preset": "evening"}, "2026-10-21T09:00:00.000Z"),
        ({"until": "2026-10-22T12:00"}, "2026-10-22T03:00:00.000Z"),
    ],
)
def test_zone_of_the_preferences_counts_whatever_the_browser_says(app, bob, told, form, expected):
    id = sent(app)
    answer = bob.post(f"/inbox/{id}/snooze", form | {"timeZone": told}, headers={"Accept": "application/json"})
    assert (answer.json["until"], answer.json["timeZone"]) == (expected, "Asia/Tokyo")
    assert asleep_until(bob) == expected


def test_zone_is_named_beside_the_time(app, client, bob):
    id = sent(app)
    for path in ("/inbox", f"/inbox/{id}"):
        assert "<span data-zone-name>Asia/Tokyo</span>" in bob.get(path).get_data(as_text=True)
        assert "<span data-zone-name>UTC</span>" in BrowserClient.for_user(app, "charlie").get(path).get_data(
            as_text=True
        )


def test_pause_until_tomorrow_is_meant_in_that_zone_too(bob):
    bob.post("/preferences/pause", {"for": "tomorrow", "timeZone": "Europe/Berlin"})
    assert bob.get("/api/user/preferences").json["doNotDisturbUntil"] == "2026-10-20T23:00:00.000Z"


def test_api_says_the_zone(app, bob):
    id = sent(app)
    body = {"broadcastIds": [id], "until": "2026-10-22T03:00:00Z"}
    told = bob.send("POST", "/api/user/messages/snooze", body).json
    assert (told["timeZone"], told["untilLocal"]) == ("Asia/Tokyo", "2026-10-22T12:00+09:00")
    assert told["until"] == "2026-10-22T03:00:00.000Z"


def test_time_that_comes_twice_is_the_first(app, client):
    bob, id = client("bob"), sent(app)
    form = {"until": "2026-10-25T02:30", "timeZone": "Europe/Berlin"}
    assert bob.post(f"/inbox/{id}/snooze", form).status_code == 303
    assert asleep_until(bob) == "2026-10-25T00:30:00.000Z"


@pytest.mark.parametrize("minutes", [0, 1, 60])
def test_message_that_ends_before_it_would_come_back_is_not_hidden_and_that_is_told(app, bob, minutes):
    until = NOW + timedelta(hours=2)
    id = sent(app, expiresAt=clock.to_rfc3339(until - timedelta(minutes=minutes)))
    local = f"{until.astimezone(ZoneInfo('Asia/Tokyo')):%Y-%m-%dT%H:%M}"
    by_form = bob.post(f"/inbox/{id}/snooze", {"until": local})
    body = {"broadcastIds": [id], "until": clock.to_rfc3339(until)}
    by_api = bob.send("POST", "/api/user/messages/snooze", body)
    assert (by_form.status_code, by_api.status_code) == (409, 409)
    assert "ends before that time" in by_api.json["detail"]
    assert "ends before that time" in html.unescape(by_form.get_data(as_text=True))
    assert asleep_until(bob) is None


def test_of_many_those_that_end_before_are_left_and_told(app, bob):
    ends = clock.to_rfc3339(NOW + timedelta(hours=1))
    short, long = sent(app, expiresAt=ends), sent(app)
    form = {"ids": [short, long], "verb": "snooze", "until": "2026-10-21T12:00"}
    answer = bob.post("/inbox/chosen", form)
    page = html.unescape(bob.get(answer.location).get_data(as_text=True))
    assert "1 message snoozed." in page
    assert "1 left as it was: This message ends before that time" in page
    assert [item["id"] for item in bob.get("/api/user/messages?view=snoozed").json["items"]] == [long]
