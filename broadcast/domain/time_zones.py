"""Users' local times: named zones, wall-clock times that do not exist or occur twice, and when a snooze ends."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

SNOOZE_MORNING, SNOOZE_EVENING = time(8), time(18)
FIRST_OCCURRENCE, SECOND_OCCURRENCE = "first", "second"  # of a local time that occurs twice


def parse_zone(name: str) -> ZoneInfo:
    """The zone of that name, UTC for an empty one. Raises ValueError for an unknown name."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("This time zone is not known.") from None


def resolve_zone(preferred: str, reported: str) -> ZoneInfo:
    """The zone of a user's preferences, else of their browser, else UTC. Raises ValueError for an unknown one."""
    return parse_zone(preferred or reported)


def parse_local_time(text: str, zone: ZoneInfo, *, occurrence: str = "", original: datetime | None = None) -> datetime:
    """The moment when clocks in `zone` show `text` (ISO, no zone).

    For a time that occurs twice, when clocks go back, `occurrence` is FIRST_OCCURRENCE or SECOND_OCCURRENCE. `original`
    is the moment that the edit form showed; if its clock time is unchanged, it is returned, to the second. Raises
    ValueError with a sentence for a time that does not exist, or that occurs twice without an `occurrence`.
    """
    try:
        local = datetime.fromisoformat(text).replace(tzinfo=zone, fold=int(occurrence == SECOND_OCCURRENCE))
        moment = local.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("This is not a date and time.") from None
    wall_time = f"{local:%H:%M}"
    if moment.astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        raise ValueError(f"The clocks go forward then: {wall_time} does not exist in {zone.key}. Choose another time.")
    if occurrence not in ("", FIRST_OCCURRENCE, SECOND_OCCURRENCE):
        raise ValueError("Choose the first or the second time.")
    if (
        original is not None
        and _is_displayed_as(original, local)
        and (not occurrence or _truncate_to_minute(original) == moment or not _is_ambiguous(local))
    ):
        return original
    if _is_ambiguous(local) and not occurrence:
        raise ValueError(f"The clocks go back then: {wall_time} comes twice in {zone.key}. Choose which one you mean.")
    return moment


def is_ambiguous_local_time(text: str, zone: ZoneInfo) -> bool:
    """Whether clocks in `zone` show that time twice. False if `text` is not a time."""
    try:
        return _is_ambiguous(datetime.fromisoformat(text).replace(tzinfo=zone))
    except (ValueError, OverflowError):
        return False


def _is_ambiguous(local: datetime) -> bool:
    """Whether the clocks go back over that time: its first occurrence is then further ahead of UTC."""
    return local.replace(fold=0).utcoffset() > local.replace(fold=1).utcoffset()


def _is_displayed_as(original: datetime, local: datetime) -> bool:
    """Whether a form, which shows no seconds, shows `original` as that time."""
    displayed = _truncate_to_minute(original).astimezone(local.tzinfo)
    return displayed.replace(tzinfo=None) == local.replace(tzinfo=None, second=0)


def _truncate_to_minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def local_to_utc(day: datetime, wall_time: time, *, use_second_occurrence: bool = False) -> datetime:
    """The moment when clocks show `wall_time` on that day: the first of two, or the end of a gap that skips it."""
    local = day.replace(hour=wall_time.hour, minute=wall_time.minute, second=0, microsecond=0, fold=0)
    return local.replace(fold=int(use_second_occurrence and _is_ambiguous(local))).astimezone(UTC)


def get_start_of_day(now: datetime, zone: ZoneInfo) -> datetime:
    """When the current day began in that zone; where clocks skip midnight, the first moment after it."""
    return local_to_utc(now.astimezone(zone), time())


def resolve_snooze_preset(preset_name: str, now: datetime, zone: ZoneInfo) -> datetime:
    """When a snooze of that name ends. Raises ValueError for another name."""
    today = now.astimezone(zone)
    match preset_name:
        case "hour":
            return now + timedelta(hours=1)
        case "evening":
            tonight = local_to_utc(today, SNOOZE_EVENING)
            is_evening = tonight <= now + timedelta(minutes=15)
            return local_to_utc(today + timedelta(days=1), SNOOZE_EVENING) if is_evening else tonight
        case "tomorrow":
            return local_to_utc(today + timedelta(days=1), SNOOZE_MORNING)
        case "monday":
            return local_to_utc(today + timedelta(days=7 - today.weekday()), SNOOZE_MORNING)
    raise ValueError("Choose when the message returns.")
