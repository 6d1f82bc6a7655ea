"""Which messages raise an alert, and when. Never whether a message arrives."""

from datetime import UTC, datetime, timedelta

import pytest

from broadcast.base.errors import Invalid
from broadcast.domain.preferences import Preferences, QuietHours, parse_preferences, parse_stored_preferences
from broadcast.domain.time_zones import parse_zone

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
NIGHT = {"quietHours": {"from": "22:00", "to": "07:00"}, "timeZone": "Europe/Berlin"}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def test_defaults_alert_of_everything_at_once():
    wanted = parse_preferences({}, now=NOW)
    assert wanted == Preferences()
    assert wanted.get_quiet_end(NOW) is None
    assert not wanted.is_alert_muted(priority="LOW", category=None)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-25T21:59+01:00", None),
        ("2026-11-25T22:00+01:00", "2026-11-26T07:00+01:00"),
        ("2026-11-26T03:00+01:00", "2026-11-26T07:00+01:00"),
        ("2026-11-26T07:00+01:00", None),
        ("2026-03-29T00:30+01:00", "2026-03-29T07:00+02:00"),  # a night of eight hours
        ("2026-10-25T00:30+02:00", "2026-10-25T07:00+01:00"),  # a night of ten
    ],
)
def test_d11_quiet_hours_hold_alerts_by_the_clock_of_the_person(now, until):
    assert parse_preferences(NIGHT).get_quiet_end(at(now)) == (until and at(until))


def test_do_not_disturb_that_runs_into_the_night_holds_until_the_morning():
    wanted = parse_preferences(NIGHT | {"doNotDisturbUntil": "2026-11-25T21:30:00Z"}, now=NOW + timedelta(hours=9))
    assert wanted.get_quiet_end(at("2026-11-25T21:00+00:00")) == at("2026-11-26T07:00+01:00")


def test_only_urgent_breaks_through_mute_and_minimum():
    wanted = parse_preferences({"mutedCategories": ["News"], "minimumPriority": "HIGH"})
    assert wanted.is_alert_muted(priority="HIGH", category="News")
    assert wanted.is_alert_muted(priority="NORMAL", category=None)
    assert not wanted.is_alert_muted(priority="HIGH", category="Ops")
    assert not wanted.is_alert_muted(priority="URGENT", category="News")
    assert not wanted.is_alert_muted(priority="HIGH", category="News", mandatory=["News"])


def test_quiet_spans_are_told_for_the_coming_days_in_order():
    spans = parse_preferences(NIGHT).get_quiet_periods(NOW)
    assert len(spans) >= 7
    assert spans == sorted(spans)
    assert all(start < end for start, end in spans)
    assert spans[0] == (at("2026-11-25T22:00+01:00"), at("2026-11-26T07:00+01:00"))


def test_what_is_written_is_read_back():
    given = NIGHT | {
        "mutedCategories": ["News"], "minimumPriority": "HIGH", "doNotDisturbUntil": "2026-11-25T13:00:00.000Z",
        "theme": "dark", "desktop": True, "sound": True, "keys": False, "reading": "manual", "email": "HIGH",
        "push": "URGENT", "digest": "daily", "digestTime": "07:30",
    }  # fmt: skip
    wanted = parse_preferences(given, now=NOW)
    assert wanted.to_json() == given
    assert parse_preferences(wanted.to_json(), now=NOW) == parse_stored_preferences(wanted.to_json()) == wanted
    assert wanted.quiet_hours == QuietHours(datetime(1, 1, 1, 22).time(), datetime(1, 1, 1, 7).time())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mutedCategories", "News"), ("mutedCategories", [1]), ("mutedCategories", [""]), ("mutedCategories", ["x" * 41]),
        ("mutedCategories", ["\ud800"]), ("mutedCategories", ["Safety"]), ("mutedCategories", [str(n) for n in range(101)]),
        ("minimumPriority", "LOUD"), ("minimumPriority", 3), ("minimumPriority", []),
        ("quietHours", {"from": "22:00"}), ("quietHours", {"from": "22:00", "to": "22:00"}), ("quietHours", "night"),
        ("quietHours", {"from": "24:00", "to": "07:00"}), ("quietHours", {"from": "22:00", "to": "07:00", "x": 1}),
        ("timeZone", "Mars/Olympus"), ("timeZone", 1), ("doNotDisturbUntil", "2026-11-25T11:00:00Z"),
        ("doNotDisturbUntil", "soon"), ("doNotDisturbUntil", 5), ("doNotDisturbUntil", "2027-11-25T12:00:00Z"),
        ("theme", "pink"), ("theme", ["dark"]), ("desktop", "yes"), ("keys", 1), ("reading", "never"), ("colour", "red"),
    ],
)  # fmt: skip
def test_a8_what_is_wrong_is_named(name, value):
    with pytest.raises(Invalid) as refused:
        parse_preferences({name: value}, now=NOW, mandatory=["Safety"])
    assert set(refused.value.fields) == {name}


@pytest.mark.parametrize("raw", [None, [], "x", 1])
def test_a8_preferences_are_one_object(raw):
    with pytest.raises(Invalid):
        parse_preferences(raw)


def test_what_another_version_wrote_counts_as_not_set():
    assert parse_stored_preferences({"theme": "pink", "keys": False, "smell": "nice"}) == Preferences(keys=False)


@pytest.mark.parametrize(
    ("chosen", "urgent", "high", "low"),
    [
        ("NEVER", False, False, False),
        ("URGENT", True, False, False),
        ("HIGH", True, True, False),
        ("LOW", True, True, True),
    ],
)
def test_email_is_wanted_from_a_priority_on(chosen, urgent, high, low):
    wanted = parse_preferences({"email": chosen})
    answers = [wanted.wants_email(priority=priority, category=None) for priority in ("URGENT", "HIGH", "LOW")]
    assert answers == [urgent, high, low]


def test_mutes_count_for_email_except_for_urgent_messages():
    wanted = parse_preferences({"mutedCategories": ["News"]})
    assert wanted.wants_email(priority="URGENT", category="News")
    assert not wanted.wants_email(priority="HIGH", category="News")
    assert wanted.wants_email(priority="HIGH", category="News", mandatory=["News"])


@pytest.mark.parametrize(
    ("after", "due"),
    [
        ("2026-11-25T07:29+01:00", "2026-11-25T07:30+01:00"),
        ("2026-11-25T07:30+01:00", "2026-11-26T07:30+01:00"),
        ("2026-03-28T07:30+01:00", "2026-03-29T07:30+02:00"),  # a day of 23 hours
        ("2026-10-24T07:30+02:00", "2026-10-25T07:30+01:00"),  # a day of 25
    ],
)
def test_daily_digest_is_due_by_the_clock_of_the_person(after, due):
    wanted = parse_preferences({"digest": "daily", "digestTime": "07:30", "timeZone": "Europe/Berlin"})
    assert wanted.get_next_digest(at(after)) == at(due)


def test_daily_digest_at_an_hour_that_comes_twice_or_never_is_due_once_a_day():
    wanted = parse_preferences({"digest": "daily", "digestTime": "02:30", "timeZone": "Europe/Berlin"})
    for start in ("2026-10-24T00:00+02:00", "2026-03-28T00:00+01:00"):
        moments = [at(start)]
        for _ in range(4):
            moments.append(wanted.get_next_digest(moments[-1]))
        days = [moment.astimezone(parse_zone("Europe/Berlin")).date() for moment in moments[1:]]
        assert len(set(days)) == 4
        assert days[-1] - days[0] == timedelta(days=3)


def test_hourly_digest_is_due_at_the_full_hour_and_never_means_none():
    wanted = parse_preferences({"digest": "hourly"})
    assert wanted.get_next_digest(at("2026-11-25T12:00+00:00")) == at("2026-11-25T13:00+00:00")
    assert wanted.get_next_digest(at("2026-11-25T12:59:59+00:00")) == at("2026-11-25T13:00+00:00")
    assert parse_preferences({"digest": "hourly", "email": "NEVER"}).get_next_digest(NOW) is None
    assert parse_preferences({}).get_next_digest(NOW) is None


def test_low_and_normal_messages_wait_for_the_digest():
    wanted = parse_preferences({"digest": "daily"})
    single = [p for p in ("LOW", "NORMAL", "HIGH", "URGENT") if wanted.wants_email(priority=p, category=None)]
    assert single == ["HIGH", "URGENT"]
    assert wanted.may_email(priority="LOW", category=None)
