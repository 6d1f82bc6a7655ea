"""What may be published. One reader of input for the form, the API, the command line and events from outside.

Field names are the public ones; each problem is one sentence under its field's name, and all problems are told
at once. Whether roles and people exist is not known here: `broadcast.actions.broadcasts` resolves a `Target`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from broadcast.base.errors import Invalid
from broadcast.domain import clock
from broadcast.domain.visible_text import is_blank

TITLE_CHARACTERS = 200
CONTENT_BYTES = 16 * 1024
CATEGORY_CHARACTERS = 40
LABEL_CHARACTERS = 40
URL_CHARACTERS = 2000
MOST_ACTIONS = 2
MOST_TARGETS = 50_000  # people by name in one broadcast; beyond that a role is the right tool
# Not str.isprintable: that refuses the joiners that Persian and many emoji are written with, and every newer character.
# The two overrides make a reader see another text than was written; lone surrogates cannot be encoded.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u202d\u202e\ud800-\udfff]")
LATE = timedelta(minutes=1)  # a schedule this little in the past is a slow form, not a mistake


class Priority(StrEnum):
    LOW = "LOW"
    NORMAL = "NORMAL"
    HIGH = "HIGH"
    URGENT = "URGENT"


class TargetType(StrEnum):
    ALL = "ALL"
    ROLE = "ROLE"
    SELECTED = "SELECTED"


class Match(StrEnum):
    ANY = "ANY"
    ALL = "ALL"


@dataclass(frozen=True, slots=True)
class Target:
    """An audience as asked for: role names, or people by user id (int) or username (str); nothing resolved yet."""

    type: TargetType
    names: tuple[int | str, ...] = ()
    match_all: bool = False  # of several roles, all are needed and not any one
    except_roles: tuple[str, ...] = ()
    except_people: tuple[int | str, ...] = ()
    snapshot: bool = False  # who is in the audience at the moment of sending, and nobody who joins later

    @property
    def is_plain_people(self) -> bool:
        return self.type is TargetType.SELECTED and not (self.except_roles or self.except_people)


@dataclass(frozen=True, slots=True)
class Link:
    """A button on the card."""

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that passed every rule that needs no database. Times are aware UTC."""

    title: str
    content: str
    target: Target
    priority: Priority = Priority.NORMAL
    category: str | None = None
    scheduled_at: datetime | None = None
    expires_at: datetime | None = None
    requires_ack: bool = False
    ack_due_at: datetime | None = None
    actions: tuple[Link, ...] = ()
    close_sessions: bool = False
    keep_as_draft: bool = False


def read_draft(raw: Any, *, now: datetime) -> Draft:
    """Make a Draft of a JSON object. Raises Invalid with a sentence for each field that is wrong, and for unknown fields."""
    if not isinstance(raw, Mapping):
        raise Invalid({"body": "Send one JSON object."})
    reader = _Reader(raw)
    draft = Draft(
        title=reader.take("title", _title),
        content=reader.take("content", read_content),
        target=_target(reader),
        priority=reader.take("priority", _one_of(Priority), Priority.NORMAL),
        category=reader.take("category", _category, None),
        scheduled_at=reader.take("scheduledAt", _time, None),
        expires_at=reader.take("expiresAt", _time, None),
        requires_ack=reader.take("requiresAck", _flag, False),
        ack_due_at=reader.take("ackDueAt", _time, None),
        actions=reader.take("actions", _links, ()),
        close_sessions=reader.take("closeSessions", _flag, False),
        keep_as_draft=reader.take("draft", _flag, False),
    )
    reader.refuse_the_rest()
    _check_times(draft, reader.problems, now)
    if draft.close_sessions and draft.target and not draft.target.is_plain_people:
        reader.problems["closeSessions"] = (
            "Only people chosen by name can be signed out: use SELECTED, without exceptions."
        )
    if reader.problems:
        raise Invalid(reader.problems)
    return draft


_REQUIRED = object()


class _Reader:
    """Takes fields one by one and gathers what is wrong with them."""

    def __init__(self, raw: Mapping[str, Any]):
        self.raw, self.problems, self.seen = raw, {}, set()

    def take(self, name: str, check: Callable[[Any], Any], default: Any = _REQUIRED) -> Any:
        self.seen.add(name)
        value = self.raw.get(name)
        if value is None:
            if default is _REQUIRED:
                self.problems[name] = f"{_spoken(name)} is missing."
                return None
            return default
        try:
            return check(value)
        except ValueError as problem:
            self.problems[name] = f"{_spoken(name)} {problem}."
            return None if default is _REQUIRED else default

    def refuse_the_rest(self) -> None:
        for name in self.raw.keys() - self.seen:
            self.problems[str(name)[:60]] = "There is no such field."


_SPOKEN = {
    "targetType": "The audience",
    "targetIds": "The audience",
    "targetMatch": "The way roles are joined",
    "exceptRoles": "Who is left out",
    "exceptIds": "Who is left out",
    "snapshot": "The wish for a snapshot",
    "content": "The message",
    "scheduledAt": "The start",
    "expiresAt": "The expiry",
    "ackDueAt": "The due date",
    "requiresAck": "The wish for an acknowledgement",
    "actions": "The links",
}


def _spoken(name: str) -> str:
    return _SPOKEN.get(name, f"The {name}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("has characters that are not valid Unicode") from None
    if "\0" in value:
        raise ValueError("must not hold a NUL character")
    return value


def is_one_line(text: str) -> bool:
    """True when `text` can stand in a line of any page: no control characters, nothing that turns the line around."""
    return not _UNFIT.search(text)


def _title(value: Any) -> str:
    title = " ".join(_text(value).split())  # one line: no line breaks, no runs of spaces
    if not title:
        raise ValueError("is missing")
    if len(title) > TITLE_CHARACTERS:
        raise ValueError(f"has {len(title)} characters; at most {TITLE_CHARACTERS} fit")
    if not is_one_line(title):
        raise ValueError("must not hold control characters")
    if is_blank(title):
        raise ValueError("has no character that can be seen")
    return title


def read_content(value: Any) -> str:
    """The text of a message as it is kept. Raises ValueError, whose sentence goes on after "The message"."""
    content = _text(value).replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    if not content.strip():
        raise ValueError("is missing")
    if is_blank(content):
        raise ValueError("has no character that can be seen")
    if (size := len(content.encode())) > CONTENT_BYTES:
        raise ValueError(f"has {size:,} bytes; at most {CONTENT_BYTES:,} fit")
    return content


def _category(value: Any) -> str | None:
    category = " ".join(_text(value).split())
    if category and is_blank(category):
        raise ValueError("has no character that can be seen")
    if len(category) > CATEGORY_CHARACTERS:
        raise ValueError(f"has {len(category)} characters; at most {CATEGORY_CHARACTERS} fit")
    if not is_one_line(category):
        raise ValueError("must not hold control characters")
    return category or None


def _one_of(choices: type[StrEnum]) -> Callable[[Any], StrEnum]:
    def check(value: Any) -> StrEnum:
        try:
            return choices(value)
        except ValueError:
            raise ValueError(f"must be one of {', '.join(choices)}") from None

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _time(value: Any) -> datetime:
    try:
        return clock.from_wire(_text(value))
    except (ValueError, OverflowError):
        raise ValueError("must be a time with its zone, such as 2026-11-04T10:42:00Z") from None


def _links(value: Any) -> tuple[Link, ...]:
    if not isinstance(value, list) or len(value) > MOST_ACTIONS:
        raise ValueError(f"must be a list of at most {MOST_ACTIONS}")
    return tuple(map(_link, value))


def _link(value: Any) -> Link:
    if not isinstance(value, Mapping) or value.keys() != {"label", "url"}:
        raise ValueError("need a label and a url each")
    label, url = " ".join(_text(value["label"]).split()), _text(value["url"]).strip()
    if not 0 < len(label) <= LABEL_CHARACTERS or not is_one_line(label) or is_blank(label):
        raise ValueError(f"need a label of 1 to {LABEL_CHARACTERS} characters that can be seen")
    if not _is_web_address(url):
        raise ValueError("need a url that begins with https:// or http://")
    return Link(label, url)


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https") and bool(parts.hostname) and len(url) <= URL_CHARACTERS and url.isprintable()
    )


def read_target(raw: Any) -> Target:
    """Make a Target of the audience fields of a message alone. Raises Invalid."""
    if not isinstance(raw, Mapping):
        raise Invalid({"body": "Send one JSON object."})
    reader = _Reader(raw)
    target = _target(reader)
    reader.refuse_the_rest()
    if reader.problems:
        raise Invalid(reader.problems)
    return target


def _target(reader: _Reader) -> Target | None:
    kind = reader.take("targetType", _one_of(TargetType))
    names = reader.take("targetIds", _names, ())
    match = reader.take("targetMatch", _one_of(Match), Match.ANY)
    except_roles = reader.take("exceptRoles", _names, ())
    except_people = reader.take("exceptIds", _names, ())
    snapshot = reader.take("snapshot", _flag, False)
    if kind is None or "targetIds" in reader.problems:
        return None
    if kind is TargetType.ALL and names:
        reader.problems["targetIds"] = "The audience is everyone; leave targetIds away, or choose ROLE or SELECTED."
    if kind is not TargetType.ALL and not names:
        chosen = "role" if kind is TargetType.ROLE else "person"
        reader.problems["targetIds"] = f"Choose at least one {chosen}: this would reach nobody."
    if kind is not TargetType.ROLE and match is Match.ALL:
        reader.problems["targetMatch"] = "Only roles can be asked for all together; choose ROLE."
    if kind is TargetType.ROLE and (both := {str(name) for name in names} & {str(name) for name in except_roles}):
        reader.problems["exceptRoles"] = f"{sorted(both)[0]} is asked for and left out at the same time."
    return Target(kind, names, match is Match.ALL, tuple(map(str, except_roles)), except_people, snapshot)


def _names(value: Any) -> tuple[int | str, ...]:
    if not isinstance(value, list):
        raise ValueError("must be a list of names")
    if len(value) > MOST_TARGETS:
        raise ValueError(f"has {len(value):,} entries; at most {MOST_TARGETS:,} fit. Use a role instead")
    return tuple(dict.fromkeys(map(_name, value)))


def _name(value: Any) -> int | str:
    """Digits are an id, as a number or as text: every username begins with a letter, and a form has only text."""
    name = value if isinstance(value, int) and not isinstance(value, bool) else _text(value).strip().lower()
    if isinstance(name, str) and not 0 < len(name) <= 64:
        raise ValueError("has an entry that is no name")
    name = id_or_username(name)
    if isinstance(name, int) and not 0 < name < 2**63:
        raise ValueError("has an id that cannot exist")
    return name


def id_or_username(name: int | str) -> int | str:
    """A person as somebody named them: a user id when it is all digits, as every username begins with a letter."""
    return int(name) if isinstance(name, str) and name.isascii() and name.isdigit() else name


def _check_times(draft: Draft, problems: dict[str, str], now: datetime) -> None:
    start = draft.scheduled_at or now
    if draft.scheduled_at and draft.scheduled_at < now - LATE:
        problems.setdefault("scheduledAt", "The start is in the past. Leave it empty to send now.")
    if draft.expires_at and draft.expires_at <= start:
        problems.setdefault("expiresAt", "The expiry must be after the start, and in the future.")
    if draft.ack_due_at and not draft.requires_ack:
        problems.setdefault("ackDueAt", "A due date needs requiresAck.")
    elif draft.ack_due_at and draft.ack_due_at <= start:
        problems.setdefault("ackDueAt", "The due date must be after the start, and in the future.")
