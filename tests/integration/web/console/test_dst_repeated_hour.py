"""Times in Berlin's repeated hour, on 25 October 2026: 02:30 is 00:30 UTC, and 01:30 UTC again."""

import html
import re
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.domain import clock
from broadcast.domain.preferences import parse_preferences
from broadcast.domain.time_zones import parse_local_time
from tests.support.builders import build_message, load_actor, publish_message
from tests.support.users import BrowserClient

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 10, 20, tzinfo=UTC)
FIRST, SECOND = "2026-10-25T00:30:00.000Z", "2026-10-25T01:30:00.000Z"
TWICE = "2026-10-25T02:30"


@pytest.fixture(autouse=True)
def in_october(monkeypatch):
    monkeypatch.setattr(clock, "now", lambda: NOW)


@given(st.datetimes(datetime(2026, 10, 24), datetime(2026, 10, 26), timezones=st.just(UTC)))
def test_form_that_is_not_touched_means_the_moment_that_it_was_drawn_with(moment):
    shown = f"{moment.astimezone(BERLIN):%Y-%m-%dT%H:%M}"
    assert parse_local_time(shown, BERLIN, original=moment) == moment


@given(st.datetimes(datetime(2026, 10, 24), datetime(2026, 10, 26), timezones=st.just(UTC)), st.sampled_from([30, 60]))
def test_what_was_drawn_says_nothing_of_another_time(moment, minutes):
    other = moment.astimezone(BERLIN).replace(tzinfo=None, day=27, second=0, microsecond=0)
    assert parse_local_time(other.isoformat(), BERLIN, original=moment) == other.replace(tzinfo=BERLIN).astimezone(UTC)


@pytest.mark.parametrize(("which", "expected"), [("first", FIRST), ("second", SECOND)])
@pytest.mark.parametrize("kept", [None, FIRST, SECOND])
def test_choice_says_which_one_is_meant(which, expected, kept):
    kept = kept and clock.parse_rfc3339(kept)
    assert clock.to_rfc3339(parse_local_time(TWICE, BERLIN, occurrence=which, original=kept)) == expected


@pytest.mark.parametrize("which", ["", "third"])
def test_without_a_choice_nothing_is_guessed(which):
    with pytest.raises(ValueError, match=r"[Cc]hoose"):
        parse_local_time(TWICE, BERLIN, occurrence=which)


def fields_of(answer) -> dict[str, str]:
    """Every hidden field and time of the page's form, as a browser would send them."""
    page = answer.get_data(as_text=True)
    form = re.search(r'<form class="compose-form".*?</form>', page, re.S)[0]
    found = {}
    for tag in re.findall(r"<input[^>]*>", form):
        name, value = re.search(r' name="([^"]*)"', tag), re.search(r' value="([^"]*)"', tag)
        if name and ('type="hidden"' in tag or "datetime-local" in tag or 'type="text"' in tag):
            found[name[1]] = html.unescape(value[1]) if value else ""
    return found | {"content": "C", "do": "send"}


@pytest.mark.parametrize("moment", [FIRST, SECOND])
@pytest.mark.parametrize("field", ["scheduledAt", "expiresAt", "ackDueAt"])
def test_plan_is_edited_without_touching_its_time(app, client, field, moment):
    client()
    times = {"scheduledAt": "2026-10-24T10:00:00Z"} | {field: moment}
    with app.app_context():
        id = publish_message(load_actor("alice"), build_message(**times, requiresAck=field == "ackDueAt"), now=NOW)
    alice, path = BrowserClient.for_user(app, "alice"), f"/console/broadcasts/{id}/edit"
    posted = fields_of(alice.get(path)) | {"title": "Changed", "targetType": "ALL", "when": "later"}
    posted |= {"requiresAck": "true"} if field == "ackDueAt" else {}
    for name in ("scheduledAt", "expiresAt", "ackDueAt"):  # as the page's script shows them to somebody in Berlin
        if posted[name]:
            posted[name] = f"{datetime.fromisoformat(posted[name] + '+00:00').astimezone(BERLIN):%Y-%m-%dT%H:%M}"
    assert alice.post(path, posted | {"timeZone": "Europe/Berlin"}).status_code == 303
    told = alice.get(f"/api/admin/broadcasts/{id}").json
    assert (told["title"], told[field]) == ("Changed", moment)


@pytest.mark.parametrize("field", ["expiresAt", "ackDueAt"])
def test_what_is_live_is_edited_without_touching_its_times(app, client, field):
    client()
    with app.app_context():
        id = publish_message(load_actor("alice"), build_message(requiresAck=True, **{field: SECOND}), now=NOW)
    alice, path = BrowserClient.for_user(app, "alice"), f"/console/broadcasts/{id}/edit"
    posted = fields_of(alice.get(path)) | {"title": "Changed", "requiresAck": "true", "acknowledgeAgain": "no"}
    posted |= {field: TWICE, "timeZone": "Europe/Berlin"}
    assert alice.post(path, posted).status_code == 303
    told = alice.get(f"/api/admin/broadcasts/{id}").json
    assert (told["title"], told[field]) == ("Changed", SECOND)


def test_new_time_that_comes_twice_is_asked_for_on_the_page_and_kept_in_the_draft(app, client):
    alice = client("alice")
    form = {"title": "T", "content": "C", "targetType": "ALL", "when": "later", "scheduledAt": TWICE}
    form |= {"timeZone": "Europe/Berlin"}
    asked = alice.post("/console/broadcasts", form)
    assert asked.status_code == 422
    page = html.unescape(asked.get_data(as_text=True))
    assert "comes twice in Europe/Berlin. Choose which one you mean." in page
    assert re.search(r'data-which="scheduledAt">', page), "the choice is shown"
    assert re.search(r'data-which="expiresAt" hidden>', page)
    saved = alice.post("/console/broadcasts", form | {"do": "save", "scheduledAtWhich": "second"})
    draft = alice.get(saved.location).get_data(as_text=True)
    assert re.search(r'<option value="second" selected>', draft)
    sent = alice.post("/console/broadcasts", form | {"scheduledAtWhich": "second"})
    id = sent.location.rpartition("/")[2]
    assert alice.get(f"/api/admin/broadcasts/{id}").json["scheduledAt"] == SECOND


@pytest.mark.parametrize("nonsense", ["x", "9999-99-99", "2026-10-25T00:30", "0001-01-01T00:00:00Z"])
def test_kept_time_that_no_page_wrote_is_left_alone(client, nonsense):
    form = {"title": "T", "content": "C", "targetType": "ALL", "when": "later", "scheduledAt": "2026-10-26T10:00"}
    assert client("alice").post("/console/broadcasts", form | {"scheduledAtKept": nonsense}).status_code == 303


def test_quiet_hours_last_through_the_hour_that_comes_twice():
    wanted = parse_preferences({"quietHours": {"from": "02:15", "to": "02:45"}, "timeZone": "Europe/Berlin"})
    spans = wanted.get_quiet_periods(datetime(2026, 10, 24, 12, tzinfo=UTC))
    start, end = spans[0]
    assert (start.time(), end.time()) == (time(0, 15), time(1, 45))
    for minute in (30, 90):
        moment = datetime(2026, 10, 25, minute // 60, minute % 60, tzinfo=UTC)
        assert wanted.get_quiet_end(moment) == end
