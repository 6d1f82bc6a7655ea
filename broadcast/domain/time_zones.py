"""Local times of people: a zone by name, a wall-clock time that may not exist or exist twice, and when a snooze ends."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MORNING, EVENING = time(8), time(18)
FIRST, SECOND = "first", "second"  # of a time that comes twice


def read_zone(name: str) -> ZoneInfo:
    """The zone of that name, UTC for an empty one. Raises ValueError for a name that is not known."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("This time zone is not known.") from None


def zone_of(preferred: str, told: str) -> ZoneInfo:
    """The zone that somebody's times are meant in: the one of their preferences, or what their browser told, or UTC.

    Raises ValueError for a zone that is not known.
    """
    return read_zone(preferred or told)


def read_local(text: str, zone: ZoneInfo, *, which: str = "", kept: datetime | None = None) -> datetime:
    """When clocks in `zone` show `text` (ISO, no zone).

    A time that comes twice, as the clocks go back, is the one that `which` names (FIRST or SECOND). `kept` is the moment that
    was shown to whoever edits: as long as its clock time is still there, it is that moment, to the second. Raises ValueError
    with a sentence for a time that never comes, or comes twice with nothing to tell which.
    """
    try:
        local = datetime.fromisoformat(text).replace(tzinfo=zone, fold=int(which == SECOND))
        moment = local.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("This is not a date and time.") from None
    if moment.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        raise ValueError(
            f"The clocks go forward then: {local:%H:%M} does not exist in {zone.key}. Choose another time."
        )
    if which not in ("", FIRST, SECOND):
        raise ValueError("Choose the first or the second time.")
    if kept is not None and _shows(kept, local) and (not which or _to_minute(kept) == moment or not _is_twice(local)):
        return kept
    if _is_twice(local) and not which:
        raise ValueError(
            f"The clocks go back then: {local:%H:%M} comes twice in {zone.key}. Choose which one is meant."
        )
    return moment


def comes_twice(text: str, zone: ZoneInfo) -> bool:
    """Whether clocks in `zone` show that time twice. False for what is no time."""
    try:
        return _is_twice(datetime.fromisoformat(text).replace(tzinfo=zone))
    except (ValueError, OverflowError):
        return False


def _is_twice(local: datetime) -> bool:
    """Whether the clocks go back over that time: before they do, they are further ahead of UTC."""
    return local.replace(fold=0).utcoffset() > local.replace(fold=1).utcoffset()


def _shows(kept: datetime, local: datetime) -> bool:
    """Whether a form, which knows no seconds, shows `kept` as that time."""
    return _to_minute(kept).astimezone(local.tzinfo).replace(tzinfo=None) == local.replace(tzinfo=None, second=0)


def _to_minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def wall(day: datetime, at: time, *, last: bool = False) -> datetime:
    """The moment at which clocks show `at` on that day (whose zone counts); in a gap of the clocks, the moment after it.

    Of a time that comes twice the first, or with `last` the second.
    """
    local = day.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0, fold=0)
    return local.replace(fold=int(last and _is_twice(local))).astimezone(UTC)


def start_of_day(now: datetime, zone: ZoneInfo) -> datetime:
    """When the day began that it is in that zone; where the clocks skip midnight, the first moment after it."""
    return wall(now.astimezone(zone), time())


def preset(name: str, now: datetime, zone: ZoneInfo) -> datetime:
    """When a snooze of that name ends: in an hour, at 18:00 (tomorrow's once it is evening), tomorrow or Monday at 8:00.

    Raises ValueError for another name.
    """
    today = now.astimezone(zone)
    match name:
        case "hour":
            return now + timedelta(hours=1)
        case "evening":
            tonight = wall(today, EVENING)
            return tonight if tonight > now + timedelta(minutes=15) else wall(today + timedelta(days=1), EVENING)
        case "tomorrow":
            return wall(today + timedelta(days=1), MORNING)
        case "monday":
            return wall(today + timedelta(days=7 - today.weekday()), MORNING)
    raise ValueError("Choose when it returns.")
