"""What a person wants to be alerted of, and when. An alert is a toast, a banner, a dialog, a desktop notice or a sound.

Preferences never touch a message: it is in the inbox at once, whatever is muted or held. Only URGENT messages break through
quiet hours, do not disturb, a mute and the minimum priority.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from broadcast.base.errors import Invalid
from broadcast.domain import clock
from broadcast.domain.message import CATEGORY_CHARACTERS, Priority
from broadcast.domain.time_zones import read_zone, wall

MOST_MUTED = 100
LONGEST_PAUSE = timedelta(days=31)
THEMES = ("system", "light", "dark")
READING = ("automatic", "manual")
_CLOCK_TIME = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d")
_DAYS_AHEAD = 8  # how far quiet hours are told to a page; a page older than that has reconnected many times

Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From one wall-clock time to another, over midnight if need be, every day in the person's zone."""

    start: time
    end: time


@dataclass(frozen=True, slots=True)
class Preferences:
    """`time_zone` is "" until the person's browser or the person has told it; then UTC is meant."""

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

    def silences(self, *, priority: str, category: str | None, mandatory: Collection[str] = ()) -> bool:
        """True when such a message raises no alert at any time. `mandatory` are categories that nobody can mute."""
        if priority == Priority.URGENT:
            return False
        is_muted = category in self.muted_categories and category not in mandatory
        return is_muted or _RANK[Priority(priority)] < _RANK[self.minimum_priority]

    def held_until(self, now: datetime) -> datetime | None:
        """When alerts that come now are shown; None when they are shown at once."""
        moment = now
        for start, end in self.quiet_spans(now):
            if start <= moment < end:
                moment = end
        return None if moment == now else moment

    def quiet_spans(self, now: datetime) -> list[Span]:
        """When alerts are held in the coming days, as moments, in order. A span that has begun is among them."""
        spans: list[Span] = []
        if self.do_not_disturb_until and self.do_not_disturb_until > now:
            spans.append((now, self.do_not_disturb_until))
        if self.quiet_hours:
            today = now.astimezone(read_zone(self.time_zone))
            for day in (today + timedelta(days=ahead) for ahead in range(-1, _DAYS_AHEAD)):
                start, end = self.quiet_hours.start, self.quiet_hours.end
                # of a time that comes twice, quiet begins with the first and ends with the second
                until = wall(day + timedelta(days=1) if end < start else day, end, last=True)
                if until > now:
                    spans.append((wall(day, start), until))
        return sorted(spans)

    def as_json(self) -> dict[str, Any]:
        """As stored and as the API shows it."""
        quiet = self.quiet_hours
        return {
            "mutedCategories": list(self.muted_categories),
            "minimumPriority": self.minimum_priority.value,
            "quietHours": quiet and {"from": f"{quiet.start:%H:%M}", "to": f"{quiet.end:%H:%M}"},
            "timeZone": self.time_zone,
            "doNotDisturbUntil": clock.to_wire(self.do_not_disturb_until),
            "theme": self.theme,
            "desktop": self.desktop,
            "sound": self.sound,
            "keys": self.keys,
            "reading": self.reading,
        }


_RANK = {priority: rank for rank, priority in enumerate(Priority)}


def read(raw: Any, *, now: datetime | None = None, mandatory: Collection[str] = ()) -> Preferences:
    """Make Preferences of a JSON object; what is missing has its default.

    Raises Invalid with a sentence for each field that is wrong or unknown. `now` None reads what was stored: a pause that is
    over is then no mistake.
    """
    if not isinstance(raw, Mapping):
        raise Invalid({"body": "Send one JSON object."})
    given, problems = dict(raw), {}
    known: dict[str, Any] = {}
    for name, (attribute, check) in _FIELDS.items():
        value = given.pop(name, None)
        if value is None:
            continue
        try:
            known[attribute] = check(value)
        except ValueError as problem:
            problems[name] = str(problem)
    problems |= {str(name)[:60]: "There is no such field." for name in given}
    if locked := sorted(set(known.get("muted_categories", ())) & set(mandatory)):
        problems["mutedCategories"] = f"{', '.join(locked)} cannot be muted here: everybody must hear of it."
    pause = known.get("do_not_disturb_until")
    if pause and now and not now < pause <= now + LONGEST_PAUSE:
        problems["doNotDisturbUntil"] = "Choose a time ahead, within a month."
    if problems:
        raise Invalid(problems)
    return Preferences(**known)


def stored(raw: Mapping[str, Any]) -> Preferences:
    """Read back what `as_json` wrote; what another version wrote differently counts as not set. Never raises."""
    try:
        return read(raw)
    except Invalid as invalid:
        return read({name: value for name, value in raw.items() if name not in invalid.fields})


def _muted(value: Any) -> tuple[str, ...]:
    is_list = isinstance(value, list) and len(value) <= MOST_MUTED
    if not is_list or not all(isinstance(n, str) and 0 < len(n) <= CATEGORY_CHARACTERS for n in value):
        raise ValueError(f"Send a list of at most {MOST_MUTED} categories.")
    if any("\ud800" <= character <= "\udfff" or character == "\0" for character in "".join(value)):
        raise ValueError("A category has a character that cannot be used.")
    return tuple(sorted(set(value)))


def _priority(value: Any) -> Priority:
    try:
        return Priority(value)
    except ValueError:
        raise ValueError(f"The priority must be one of {', '.join(Priority)}.") from None


def _quiet(value: Any) -> QuietHours:
    match value:
        case {"from": str(start), "to": str(end), **others} if not others:
            if not (_CLOCK_TIME.fullmatch(start) and _CLOCK_TIME.fullmatch(end)):
                raise ValueError("Quiet hours are two times like 22:00 and 07:00.")
            if start == end:
                raise ValueError("Quiet hours that end when they begin would hold nothing, or everything.")
            return QuietHours(time.fromisoformat(start), time.fromisoformat(end))
    raise ValueError("Quiet hours are two times like 22:00 and 07:00.")


def _zone(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("This time zone is not known.")
    return read_zone(value).key if value else ""


def _moment(value: Any) -> datetime:
    try:
        return clock.from_wire(value)
    except (TypeError, ValueError):
        raise ValueError("This is not a time with its zone.") from None


def _one_of(*names: str) -> Any:
    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError(f"Choose one of {', '.join(names)}.")
        return value

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("This is true or false.")
    return value


_FIELDS = {
    "mutedCategories": ("muted_categories", _muted),
    "minimumPriority": ("minimum_priority", _priority),
    "quietHours": ("quiet_hours", _quiet),
    "timeZone": ("time_zone", _zone),
    "doNotDisturbUntil": ("do_not_disturb_until", _moment),
    "theme": ("theme", _one_of(*THEMES)),
    "desktop": ("desktop", _flag),
    "sound": ("sound", _flag),
    "keys": ("keys", _flag),
    "reading": ("reading", _one_of(*READING)),
}
