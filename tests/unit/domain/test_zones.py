"""Local times: those that do not exist or occur twice, and when a snooze ends."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from broadcast.domain.time_zones import parse_local_time, parse_zone, resolve_snooze_preset

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("name", "now", "until"),
    [
        ("hour", "2026-11-25T10:00+01:00", "2026-11-25T11:00+01:00"),
        ("evening", "2026-11-25T10:00+01:00", "2026-11-25T18:00+01:00"),
        ("evening", "2026-11-25T17:50+01:00", "2026-11-26T18:00+01:00"),
        ("tomorrow", "2026-11-25T23:30+01:00", "2026-11-26T08:00+01:00"),
        ("tomorrow", "2026-11-25T23:30+00:00", "2026-11-27T08:00+01:00"),  # in Berlin it is tomorrow already
        ("tomorrow", "2026-03-28T12:00+01:00", "2026-03-29T08:00+02:00"),  # the clocks go forward in between
        ("monday", "2026-11-25T10:00+01:00", "2026-11-30T08:00+01:00"),
        ("monday", "2026-11-30T07:00+01:00", "2026-12-07T08:00+01:00"),
    ],
)
def test_snooze_ends_in_the_zone_of_the_person(name, now, until):
    assert resolve_snooze_preset(name, at(now), BERLIN) == at(until)


@pytest.mark.parametrize("name", ["", "never", "Hour"])
def test_unknown_preset_is_refused(name):
    with pytest.raises(ValueError, match="Choose"):
        resolve_snooze_preset(name, at("2026-11-25T10:00+01:00"), BERLIN)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("2026-03-29T02:30", "go forward"),
        ("2026-10-25T02:30", "go back"),
        ("tomorrow", "not a date"),
        ("", "not a date"),
        ("9999-12-31T23:59", None),
    ],
)
def test_local_time_that_is_no_one_moment_is_refused(text, sentence):
    if sentence is None:
        assert parse_local_time(text, BERLIN).year == 9999
        return
    with pytest.raises(ValueError, match=sentence):
        parse_local_time(text, BERLIN)


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", "Europe/Berlin\0"])
def test_unknown_zone_is_refused(name):
    with pytest.raises(ValueError, match="not known"):
        parse_zone(name)
