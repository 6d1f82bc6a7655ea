"""What alerts a user wants, and when. An alert is a toast, a banner, a dialog, a desktop notification or a sound.

Preferences never affect the message itself: it is in the inbox at once, whatever is muted or held back. Only URGENT
messages override quiet hours, do not disturb, mutes and the minimum priority. No message overrides `email` and `push`,
from which priority a user wants these about what they have not seen.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import partial
from typing import Any

from broadcast.base.errors import Invalid
from broadcast.domain import clock
from broadcast.domain.message import MAX_CATEGORY_CHARACTERS, Priority
from broadcast.domain.time_zones import local_to_utc, parse_zone

MAX_MUTED_CATEGORIES = 100
MAX_DO_NOT_DISTURB = timedelta(days=31)
THEMES = ("system", "light", "dark")
READING_MODES = ("automatic", "manual")
NEVER = "NEVER"
DIGESTS = ("off", "hourly", "daily")
DIGEST_PRIORITIES = (Priority.LOW, Priority.NORMAL)  # wait for the digest, if somebody wants one
_CLOCK_TIME = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d")
_QUIET_LOOKAHEAD_DAYS = 8  # sent to a page; it reconnects many times within these days

Period = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A daily period in the user's time zone, given in wall-clock times; it may cross midnight."""

    start: time
    end: time

    def to_json(self) -> dict[str, str]:
        return {"from": f"{self.start:%H:%M}", "to": f"{self.end:%H:%M}"}


@dataclass(frozen=True, slots=True)
class Preferences:
    """`time_zone` is "" (UTC) until the user or their browser has set it. `email` and `push` None: never; without
    `email` no `digest` either.

    `digest` is one of DIGESTS: one mail of all that is unread then. `digest_time` is that of the daily one.
    """

    muted_categories: tuple[str, ...] = ()
    minimum_priority: Priority = Priority.LOW
    quiet_hours: QuietHours | None = None
    time_zone: str = ""
    do_not_disturb_until: datetime | None = None
    theme: str = "system"
    desktop: bool = False
    sound: bool = False
    keys: bool = True
    reading: str = "automatic"
    email: Priority | None = Priority.LOW
    digest: str = "off"
    digest_time: time = time(8)
    push: Priority | None = Priority.LOW

    def is_alert_muted(self, *, priority: str, category: str | None, mandatory: Collection[str] = ()) -> bool:
        """Whether such a message never raises an alert. `mandatory` are categories that nobody can mute."""
        if priority == Priority.URGENT:
            return False
        is_muted = category in self.muted_categories and category not in mandatory
        return is_muted or _PRIORITY_RANKS[Priority(priority)] < _PRIORITY_RANKS[self.minimum_priority]

    def wants_email(self, *, priority: str, category: str | None, mandatory: Collection[str] = ()) -> bool:
        """Whether a mail of its own may be sent to them about such a message."""
        is_in_digest = self.digest != "off" and priority in DIGEST_PRIORITIES
        return not is_in_digest and self.may_email(priority=priority, category=category, mandatory=mandatory)

    def may_email(self, *, priority: str, category: str | None, mandatory: Collection[str] = ()) -> bool:
        """Whether such a message may be sent to them by e-mail, alone or in a digest."""
        return self._is_wanted_from(self.email, priority, category, mandatory)

    def wants_push(self, *, priority: str, category: str | None, mandatory: Collection[str] = ()) -> bool:
        """Whether such a message may be pushed to their browsers."""
        return self._is_wanted_from(self.push, priority, category, mandatory)

    def has_turned_off(self, channel: str) -> bool:
        """Whether they want nothing at all by this channel."""
        return {"email": self.email, "push": self.push}.get(channel, Priority.LOW) is None

    def _is_wanted_from(
        self, minimum: Priority | None, priority: str, category: str | None, mandatory: Collection[str]
    ) -> bool:
        if minimum is None or _PRIORITY_RANKS[Priority(priority)] < _PRIORITY_RANKS[minimum]:
            return False
        return not self.is_alert_muted(priority=priority, category=category, mandatory=mandatory)

    def get_next_digest(self, after: datetime) -> datetime | None:
        """When the first digest after that moment is due; None if they want none.

        A time that occurs twice, when clocks go back, counts once; of a time that clocks skip, the end of the gap.
        """
        if self.email is None or self.digest == "off":
            return None
        if self.digest == "hourly":
            return after.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        today = after.astimezone(parse_zone(self.time_zone))
        moments = (local_to_utc(today + timedelta(days=days), self.digest_time) for days in range(3))
        return next(moment for moment in moments if moment > after)

    def get_quiet_end(self, now: datetime) -> datetime | None:
        """When an alert raised now is shown; None if at once."""
        quiet_end = now
        for start, end in self.get_quiet_periods(now):
            if start <= quiet_end < end:
                quiet_end = end
        return None if quiet_end == now else quiet_end

    def get_quiet_periods(self, now: datetime) -> list[Period]:
        """The periods of the coming days in which alerts are held back, in order; includes one that has begun."""
        periods: list[Period] = []
        if self.do_not_disturb_until and self.do_not_disturb_until > now:
            periods.append((now, self.do_not_disturb_until))
        if self.quiet_hours:
            today = now.astimezone(parse_zone(self.time_zone))
            for day in (today + timedelta(days=day_offset) for day_offset in range(-1, _QUIET_LOOKAHEAD_DAYS)):
                start, end = self.quiet_hours.start, self.quiet_hours.end
                # of a time that occurs twice, quiet hours start at the first and end at the second
                ends_at = local_to_utc(day + timedelta(days=1) if end < start else day, end, use_second_occurrence=True)
                if ends_at > now:
                    periods.append((local_to_utc(day, start), ends_at))
        return sorted(periods)

    def to_json(self) -> dict[str, Any]:
        """As stored, and as the API shows it."""
        values = {name: getattr(self, attribute) for name, (attribute, _) in _FIELDS.items()}
        return values | {
            "mutedCategories": list(self.muted_categories),
            "quietHours": self.quiet_hours and self.quiet_hours.to_json(),
            "doNotDisturbUntil": clock.to_rfc3339(self.do_not_disturb_until),
            "email": self.email or NEVER,
            "push": self.push or NEVER,
            "digestTime": f"{self.digest_time:%H:%M}",
        }


_PRIORITY_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


def parse_preferences(raw: Any, *, now: datetime | None = None, mandatory: Collection[str] = ()) -> Preferences:
    """Parse a JSON object; missing fields have defaults. `now` None: as stored, with a past pause. Raises Invalid."""
    if not isinstance(raw, Mapping):
        raise Invalid({"body": "Send one JSON object."})
    remaining_fields, problems = dict(raw), {}
    values: dict[str, Any] = {}
    for name, (attribute, parse) in _FIELDS.items():
        value = remaining_fields.pop(name, None)
        if value is None:
            continue
        try:
            values[attribute] = parse(value)
        except ValueError as problem:
            problems[name] = str(problem)
    problems |= {str(name)[:60]: "There is no such field." for name in remaining_fields}
    if unmutable := sorted(set(values.get("muted_categories", ())) & set(mandatory)):
        problems["mutedCategories"] = f"{', '.join(unmutable)} cannot be muted: everyone must be alerted."
    paused_until = values.get("do_not_disturb_until")
    if paused_until and now and not now < paused_until <= now + MAX_DO_NOT_DISTURB:
        problems["doNotDisturbUntil"] = "Choose a time in the future, within a month."
    if problems:
        raise Invalid(problems)
    return Preferences(**values)


def parse_stored_preferences(raw: Mapping[str, Any]) -> Preferences:
    """Read back what `to_json` wrote; fields that another version wrote differently count as not set. Never raises."""
    try:
        return parse_preferences(raw)
    except Invalid as invalid:
        return parse_preferences({name: value for name, value in raw.items() if name not in invalid.fields})


def _parse_muted_categories(value: Any) -> tuple[str, ...]:
    is_list = isinstance(value, list) and len(value) <= MAX_MUTED_CATEGORIES
    if not is_list or not all(isinstance(name, str) and 0 < len(name) <= MAX_CATEGORY_CHARACTERS for name in value):
        raise ValueError(f"Send a list of at most {MAX_MUTED_CATEGORIES} categories.")
    if any("\ud800" <= character <= "\udfff" or character == "\0" for character in "".join(value)):
        raise ValueError("A category has a character that cannot be used.")
    return tuple(sorted(set(value)))


def _parse_priority(value: Any) -> Priority:
    try:
        return Priority(value)
    except ValueError:
        raise ValueError(f"The priority must be one of {', '.join(Priority)}.") from None


def _parse_channel_priority(label: str, value: Any) -> Priority | None:
    if value == NEVER:
        return None
    try:
        return Priority(value)
    except ValueError:
        raise ValueError(f"{label} must be one of {', '.join([NEVER, *Priority])}.") from None


def _parse_quiet_hours(value: Any) -> QuietHours:
    match value:
        case {"from": str(start), "to": str(end), **others} if not others and all(
            map(_CLOCK_TIME.fullmatch, (start, end))
        ):
            if start == end:
                raise ValueError("Quiet hours must start and end at different times.")
            return QuietHours(time.fromisoformat(start), time.fromisoformat(end))
    raise ValueError("Quiet hours need two times, like 22:00 and 07:00.")


def _parse_clock_time(value: Any) -> time:
    if not isinstance(value, str) or not _CLOCK_TIME.fullmatch(value):
        raise ValueError("Type a time, like 08:00.")
    return time.fromisoformat(value)


def _parse_time_zone(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("This time zone is not known.")
    return parse_zone(value).key if value else ""


def _parse_time(value: Any) -> datetime:
    try:
        return clock.parse_rfc3339(value)
    except (TypeError, ValueError):
        raise ValueError("This is not a time with a time zone.") from None


def _parse_choice(choices: Collection[str], value: Any) -> str:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"Choose one of {', '.join(choices)}.")
    return value


def _parse_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("This must be true or false.")
    return value


_FIELDS = {
    "mutedCategories": ("muted_categories", _parse_muted_categories),
    "minimumPriority": ("minimum_priority", _parse_priority),
    "quietHours": ("quiet_hours", _parse_quiet_hours),
    "timeZone": ("time_zone", _parse_time_zone),
    "doNotDisturbUntil": ("do_not_disturb_until", _parse_time),
    "theme": ("theme", partial(_parse_choice, THEMES)),
    "desktop": ("desktop", _parse_bool),
    "sound": ("sound", _parse_bool),
    "keys": ("keys", _parse_bool),
    "reading": ("reading", partial(_parse_choice, READING_MODES)),
    "email": ("email", partial(_parse_channel_priority, "E-mail")),
    "push": ("push", partial(_parse_channel_priority, "Push")),
    "digest": ("digest", partial(_parse_choice, DIGESTS)),
    "digestTime": ("digest_time", _parse_clock_time),
}
