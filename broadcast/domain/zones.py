"""Local times of people: a zone by name, a wall-clock time that may not exist or exist twice, and when a snooze ends."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MORNING, EVENING = time(8), time(18)


def read_zone(name: str) -> ZoneInfo:
    """The zone of that name, UTC for an empty one. Raises ValueError for a name that is not known."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("This time zone is not known.") from None


def read_local(text: str, zone: ZoneInfo) -> datetime:
    """When clocks in `zone` show `text` (ISO, no zone). Raises ValueError with a sentence when that is never, or twice."""
    try:
        local = datetime.fromisoformat(text).replace(tzinfo=zone)
        moment = local.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("This is not a date and time.") from None
    if moment.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        raise ValueError(
            f"The clocks go forward then: {local:%H:%M} does not exist in {zone.key}. Choose another time."
        )
    if local.replace(fold=1).utcoffset() != local.utcoffset():
        raise ValueError(f"The clocks go back then: {local:%H:%M} comes twice in {zone.key}. Choose another time.")
    return moment


def wall(day: datetime, at: time) -> datetime:
    """The moment at which clocks show `at` on that day (whose zone counts); in a gap of the clocks, the moment after it."""
    local = day.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0, fold=0)
    return local.astimezone(UTC)


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
