"""The compose form: local times, usernames in a text box, errors at their fields, and typed text is never lost."""

from datetime import UTC, datetime

import pytest
from werkzeug.datastructures import MultiDict

from broadcast.base.errors import Invalid
from broadcast.domain.message import Draft, Target, TargetType
from broadcast.web.console.broadcasts import compose_form

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def read(**fields) -> Draft:
    form = {"title": "T", "content": "C", "targetType": "ALL"} | fields
    return compose_form.parse_form(MultiDict(form), now=NOW)


def problems(**fields) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        read(**fields)
    return caught.value.fields


def test_local_time_is_read_in_its_zone():
    draft = read(when="later", scheduledAt="2026-07-01T10:00", expiresAt="2026-12-01T10:00", timeZone="Europe/Berlin")
    assert draft.scheduled_at == datetime(2026, 7, 1, 8, 0, tzinfo=UTC)
    assert draft.expires_at == datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
    assert read(when="later", scheduledAt="2026-07-01T10:00").scheduled_at == datetime(2026, 7, 1, 10, 0, tzinfo=UTC)


def test_start_that_was_typed_before_choosing_now_is_left_aside():
    assert read(when="now", scheduledAt="2026-07-01T10:00").scheduled_at is None


def test_later_without_a_time_is_told():
    assert set(problems(when="later", scheduledAt="")) == {"scheduledAt"}


@pytest.mark.parametrize(
    ("zone", "time", "word"),
    [
        ("Europe/Berlin", "2026-03-29T02:30", "forward"),
        ("Europe/Berlin", "2026-10-25T02:30", "twice"),
        ("America/New_York", "2026-03-08T02:00", "forward"),
        ("America/New_York", "2026-11-01T01:59", "twice"),
        ("Australia/Lord_Howe", "2026-10-04T02:15", "forward"),
    ],
)
@pytest.mark.parametrize("field", ["scheduledAt", "expiresAt"])
def test_time_that_does_not_exist_or_comes_twice_is_not_guessed(zone, time, word, field):
    told = problems(**{"when": "later", "scheduledAt": "2026-02-01T00:00", "timeZone": zone, field: time})
    assert set(told) == {field}
    assert word in told[field]
    assert time[-5:] in told[field]


@pytest.mark.parametrize(
    ("zone", "time"), [("Europe/Berlin", "2026-03-29T03:00"), ("Europe/Berlin", "2026-10-25T03:00")]
)
def test_times_beside_the_change_are_fine(zone, time):
    assert read(when="later", scheduledAt=time, timeZone=zone).scheduled_at


@pytest.mark.parametrize(
    "time", ["soon", "2026-13-01T00:00", "2026-07-01", "9999-12-31T23:59", "0001-01-01T00:00", "\0", "x" * 5000]
)
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles"])
def test_time_that_is_none_is_told(time, zone):
    if time == "2026-07-01":
        assert read(expiresAt=time, timeZone=zone).expires_at  # a day alone begins at midnight
        return
    assert set(problems(expiresAt=time, timeZone=zone)) == {"expiresAt"}


@pytest.mark.parametrize(
    "zone", ["Mars/Base", "../../etc/passwd", "/etc/passwd", "America", "\0", "x" * 5000, "posix/"]
)
def test_unknown_zone_is_told(zone):
    assert set(problems(timeZone=zone)) == {"timeZone"}


def test_names_are_separated_by_whatever_people_type():
    assert read(targetType="SELECTED", people=" bob, Charlie;\n\tdana  ").target == Target(
        TargetType.SELECTED, ("bob", "charlie", "dana")
    )


@pytest.mark.parametrize(("kind", "field"), [("ROLE", "roles"), ("SELECTED", "people")])
def test_empty_audience_is_told_at_the_field_that_is_shown(kind, field):
    assert set(problems(targetType=kind)) == {field}


def test_fields_of_the_other_choice_do_not_count():
    """Somebody who changed their mind from "these people" to "everyone" means everyone."""
    form = MultiDict([("title", "T"), ("content", "C"), ("targetType", "ALL"), ("people", "bob"), ("roles", "ops")])
    assert compose_form.parse_form(form, now=NOW).target == Target(TargetType.ALL)


def test_mistakes_of_clock_and_message_are_told_together():
    told = problems(title="", expiresAt="soon", priority="LOUD", timeZone="Mars/Base")
    assert set(told) == {"title", "expiresAt", "priority", "timeZone"}
