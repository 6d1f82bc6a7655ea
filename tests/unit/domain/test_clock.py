"""Serialized times: aware UTC in and out, never guessed."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.domain import clock

_moments = st.datetimes(datetime(2000, 1, 3), datetime(2999, 12, 29), timezones=st.timezones())


@given(moment=_moments)
def test_wire_and_back_keeps_the_millisecond(moment):
    text = clock.to_rfc3339(moment)
    assert text.endswith("Z")
    assert len(text) == len("2026-11-04T10:42:00.000Z")
    back = clock.parse_rfc3339(text)
    assert back.utcoffset() == timedelta(0)
    assert timedelta(0) <= moment.astimezone(UTC) - back < timedelta(milliseconds=1)


def test_now_is_aware_utc():
    assert clock.now().utcoffset() == timedelta(0)


def test_no_time_is_none():
    assert clock.to_rfc3339(None) is None


def test_other_zones_are_turned_into_utc():
    assert clock.parse_rfc3339("2026-11-04T10:00:00+05:45") == datetime(2026, 11, 4, 4, 15, tzinfo=UTC)
    assert clock.to_rfc3339(datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3)))) == "2026-01-01T03:00:00.000Z"


@pytest.mark.parametrize(
    "text", ["2026-11-04T10:00:00", "2026-11-04", "", "10:00Z", "now", "1999-12-31T00:00:00Z", "3000-01-01T00:00Z"]
)
def test_time_without_zone_or_sense_is_refused(text):
    with pytest.raises(ValueError):
        clock.parse_rfc3339(text)


@pytest.fixture
def wrong_clock(monkeypatch):
    """This machine's clock, which a test may set wrong: minutes fast."""
    monkeypatch.setattr(clock, "_offset", timedelta())

    def set_wrong(minutes: float) -> None:
        class Wrong(datetime):
            @classmethod
            def now(cls, zone=None):
                return datetime.now(zone) + timedelta(minutes=minutes)

        monkeypatch.setattr(clock, "datetime", Wrong)

    return set_wrong


@pytest.mark.parametrize("minutes", [5, -5, 0])
def test_clock_that_is_wrong_by_minutes_follows_the_shared_one(wrong_clock, minutes):
    """F18"""
    wrong_clock(minutes)
    assert abs(clock.now() - datetime.now(UTC) - timedelta(minutes=minutes)) < timedelta(seconds=30)
    clock.synchronize(lambda: datetime.now(UTC))
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=30)


def test_small_difference_is_nobodys_and_a_late_answer_is_not_believed(wrong_clock, monkeypatch):
    clock.synchronize(lambda: datetime.now(UTC) - timedelta(seconds=0.9))
    assert clock._offset == timedelta()
    ticking = iter([datetime.now(UTC), datetime.now(UTC) + timedelta(seconds=7)])
    monkeypatch.setattr(
        clock, "datetime", type("Slow", (datetime,), {"now": classmethod(lambda cls, zone: next(ticking))})
    )
    clock.synchronize(lambda: datetime(2026, 1, 1, tzinfo=UTC))
    assert clock._offset == timedelta()
