"""Validation of messages. One parser for the form, the API, the command line and inbound events.

Field names are the public ones. Each problem is one sentence under its field's name, and all problems are reported at
once. Whether roles and users exist is not checked here: `broadcast.actions.audiences` resolves a `Target`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from broadcast.base.errors import Invalid
from broadcast.domain import clock
from broadcast.domain.visible_text import is_blank

MAX_TITLE_CHARACTERS = 200
MAX_CONTENT_BYTES = 16 * 1024
MAX_CATEGORY_CHARACTERS = 40
MAX_LABEL_CHARACTERS = 40
MAX_URL_CHARACTERS = 2000
MAX_ACTIONS = 2
MAX_POLICY_CHARACTERS = 40
NO_ESCALATION = "none"  # in place of the name of a policy
MAX_TARGETS = 50_000  # users named in one broadcast; beyond that, use a role
# Not str.isprintable: it refuses the joiners of Persian and of many emoji, and every newer character. The two overrides
# make the displayed text differ from the written one; lone surrogates cannot be encoded.
_FORBIDDEN_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202d\u202e\ud800-\udfff]")
SCHEDULE_TOLERANCE = timedelta(minutes=1)  # a send time this little in the past is a slow form, not a mistake


class Priority(StrEnum):
    LOW = "LOW"
    NORMAL = "NORMAL"
    HIGH = "HIGH"
    URGENT = "URGENT"


class TargetType(StrEnum):
    ALL = "ALL"
    ROLE = "ROLE"
    SELECTED = "SELECTED"


class RoleMatch(StrEnum):
    ANY = "ANY"
    ALL = "ALL"


@dataclass(frozen=True, slots=True)
class Target:
    """An unresolved audience: role names, or users by id (int) or username (str)."""

    type: TargetType
    names: tuple[int | str, ...] = ()
    match_all: bool = False  # users need all of the roles, not any one
    except_roles: tuple[str, ...] = ()
    except_people: tuple[int | str, ...] = ()
    snapshot: bool = False  # fixed at the moment of sending; excludes users who join later

    @property
    def is_users_only(self) -> bool:
        return self.type is TargetType.SELECTED and not (self.except_roles or self.except_people)


@dataclass(frozen=True, slots=True)
class Link:
    """A button on the card."""

    label: str
    url: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A message that passed every rule that needs no database. Times are aware UTC.

    `escalation` is the name of a policy, NO_ESCALATION, or None: the default of the priority.
    """

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
    escalation: str | None = None
    close_sessions: bool = False
    keep_as_draft: bool = False


def parse_draft(raw: Any, *, now: datetime) -> Draft:
    """Parse a JSON object into a Draft. Raises Invalid with a sentence for each wrong or unknown field."""
    reader = _FieldReader(raw)
    draft = Draft(
        title=reader.read_field("title", _parse_title, is_required=True),
        content=reader.read_field("content", parse_content, is_required=True),
        target=_parse_target_fields(reader),
        priority=reader.read_field("priority", partial(_parse_enum, Priority), Priority.NORMAL),
        category=reader.read_field("category", partial(_parse_line, max_characters=MAX_CATEGORY_CHARACTERS)) or None,
        scheduled_at=reader.read_field("scheduledAt", _parse_time),
        expires_at=reader.read_field("expiresAt", _parse_time),
        requires_ack=reader.read_field("requiresAck", _parse_bool, False),
        ack_due_at=reader.read_field("ackDueAt", _parse_time),
        actions=reader.read_field("actions", _parse_links, ()),
        escalation=reader.read_field("escalation", _parse_escalation) or None,
        close_sessions=reader.read_field("closeSessions", _parse_bool, False),
        keep_as_draft=reader.read_field("draft", _parse_bool, False),
    )
    reader.reject_unknown_fields()
    _check_times(draft, reader.problems, now)
    if draft.close_sessions and draft.target and not draft.target.is_users_only:
        sentence = "Only people chosen by name can be signed out. Use SELECTED, without exclusions."
        reader.problems["closeSessions"] = sentence
    if reader.problems:
        raise Invalid(reader.problems)
    return draft


class _FieldReader:
    """Reads fields one by one and collects their problems."""

    def __init__(self, raw: Any):
        if not isinstance(raw, Mapping):
            raise Invalid({"body": "Send one JSON object."})
        self.raw, self.problems, self.known_names = raw, {}, set()

    def read_field(
        self, name: str, parse: Callable[[Any], Any], default: Any = None, *, is_required: bool = False
    ) -> Any:
        self.known_names.add(name)
        value = self.raw.get(name)
        try:
            if value is not None:
                return parse(value)
            if is_required:
                raise ValueError("is missing")
        except ValueError as problem:
            self.problems[name] = f"{_FIELD_LABELS.get(name, f'The {name}')} {problem}."
        return default

    def reject_unknown_fields(self) -> None:
        for name in self.raw.keys() - self.known_names:
            self.problems[str(name)[:60]] = "There is no such field."


_FIELD_LABELS = {
    "targetType": "The audience",
    "targetIds": "The audience",
    "targetMatch": "The field targetMatch",
    "exceptRoles": "The exclusion list",
    "exceptIds": "The exclusion list",
    "snapshot": "The field snapshot",
    "content": "The message",
    "scheduledAt": "The send time",
    "expiresAt": "The end time",
    "ackDueAt": "The due date",
    "requiresAck": "The field requiresAck",
    "actions": "The buttons",
    "escalation": "The escalation policy",
}


def _parse_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("has characters that are not valid Unicode") from None
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def is_single_line(text: str) -> bool:
    """Whether `text` fits on one line of any page: no control characters, nothing that reverses the text direction."""
    return not _FORBIDDEN_CHARACTERS.search(text)


def is_visible_line(text: str, max_characters: int) -> bool:
    """Whether `text` is a single line of 1 to so many characters, some of them visible."""
    return 0 < len(text) <= max_characters and is_single_line(text) and not is_blank(text)


def _parse_title(value: Any) -> str:
    if not (title := _parse_line(value, MAX_TITLE_CHARACTERS)):
        raise ValueError("is missing")
    return title


def _parse_line(value: Any, max_characters: int) -> str:
    """One line, perhaps empty: no line breaks, no runs of spaces."""
    line = " ".join(_parse_text(value).split())
    if len(line) > max_characters:
        raise ValueError(f"has {len(line)} characters; at most {max_characters} fit")
    if not is_single_line(line):
        raise ValueError("must not contain control characters")
    if line and is_blank(line):
        raise ValueError("has no visible characters")
    return line


def parse_content(value: Any) -> str:
    """Normalize the text of a message. Raises ValueError whose message continues "The message"."""
    content = _parse_text(value).replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    if not content.strip():
        raise ValueError("is missing")
    if is_blank(content):
        raise ValueError("has no visible characters")
    if (size := len(content.encode())) > MAX_CONTENT_BYTES:
        raise ValueError(f"has {size:,} bytes; at most {MAX_CONTENT_BYTES:,} fit")
    return content


def _parse_escalation(value: Any) -> str:
    name = _parse_line(value, MAX_POLICY_CHARACTERS)
    return NO_ESCALATION if name.casefold() == NO_ESCALATION else name


def _parse_enum(choices: type[StrEnum], value: Any) -> StrEnum:
    try:
        return choices(value)
    except ValueError:
        raise ValueError(f"must be one of {', '.join(choices)}") from None


def _parse_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _parse_time(value: Any) -> datetime:
    try:
        return clock.parse_rfc3339(_parse_text(value))
    except (ValueError, OverflowError):
        raise ValueError("must be a time with a time zone, such as 2026-11-04T10:42:00Z") from None


def _parse_links(value: Any) -> tuple[Link, ...]:
    if not isinstance(value, list) or len(value) > MAX_ACTIONS:
        raise ValueError(f"must be a list of at most {MAX_ACTIONS}")
    return tuple(map(_parse_link, value))


def _parse_link(value: Any) -> Link:
    if not isinstance(value, Mapping) or value.keys() != {"label", "url"}:
        raise ValueError("each need a label and a URL")
    label, url = " ".join(_parse_text(value["label"]).split()), _parse_text(value["url"]).strip()
    if not is_visible_line(label, MAX_LABEL_CHARACTERS):
        raise ValueError(f"need a label of 1 to {MAX_LABEL_CHARACTERS} visible characters")
    if not _is_web_address(url):
        raise ValueError("need a URL that starts with https:// or http://")
    return Link(label, url)


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    has_host = parts.scheme in ("http", "https") and bool(parts.hostname)
    return has_host and len(url) <= MAX_URL_CHARACTERS and url.isprintable()


def parse_target(raw: Any) -> Target:
    """Parse an object that has only the audience fields of a message. Raises Invalid."""
    reader = _FieldReader(raw)
    target = _parse_target_fields(reader)
    reader.reject_unknown_fields()
    if reader.problems:
        raise Invalid(reader.problems)
    return target


def _parse_target_fields(reader: _FieldReader) -> Target | None:
    target_type = reader.read_field("targetType", partial(_parse_enum, TargetType), is_required=True)
    names = reader.read_field("targetIds", _parse_names, ())
    match = reader.read_field("targetMatch", partial(_parse_enum, RoleMatch), RoleMatch.ANY)
    except_roles = reader.read_field("exceptRoles", _parse_names, ())
    except_people = reader.read_field("exceptIds", _parse_names, ())
    snapshot = reader.read_field("snapshot", _parse_bool, False)
    if target_type is None or "targetIds" in reader.problems:
        return None
    if target_type is TargetType.ALL and names:
        reader.problems["targetIds"] = "The audience is everyone. Leave out targetIds, or choose ROLE or SELECTED."
    if target_type is not TargetType.ALL and not names:
        target_noun = "role" if target_type is TargetType.ROLE else "person"
        reader.problems["targetIds"] = f"Choose at least one {target_noun}: this would reach nobody."
    if target_type is not TargetType.ROLE and match is RoleMatch.ALL:
        reader.problems["targetMatch"] = "Only roles can be combined with ALL. Choose ROLE."
    if target_type is TargetType.ROLE and (conflicting := set(map(str, names)).intersection(map(str, except_roles))):
        reader.problems["exceptRoles"] = f"{sorted(conflicting)[0]} is both included and excluded."
    return Target(target_type, names, match is RoleMatch.ALL, tuple(map(str, except_roles)), except_people, snapshot)


def _parse_names(value: Any) -> tuple[int | str, ...]:
    if not isinstance(value, list):
        raise ValueError("must be a list of names")
    if len(value) > MAX_TARGETS:
        raise ValueError(f"has {len(value):,} entries; at most {MAX_TARGETS:,} fit. Use a role instead")
    return tuple(dict.fromkeys(map(_parse_name, value)))


def _parse_name(value: Any) -> int | str:
    """Digits are an id, as a number or as text: every username begins with a letter, and a form sends only text."""
    name = value if isinstance(value, int) and not isinstance(value, bool) else _parse_text(value).strip().lower()
    if isinstance(name, str) and not 0 < len(name) <= 64:
        raise ValueError("has an entry that is not a name")
    name = parse_id_or_username(name)
    if isinstance(name, int) and not 0 < name < 2**63:
        raise ValueError("has an invalid ID")
    return name


def parse_id_or_username(name: int | str) -> int | str:
    """A user id if `name` is all digits, since every username begins with a letter; else the username."""
    return int(name) if isinstance(name, str) and name.isascii() and name.isdigit() else name


def _check_times(draft: Draft, problems: dict[str, str], now: datetime) -> None:
    start = draft.scheduled_at or now
    if draft.scheduled_at and draft.scheduled_at < now - SCHEDULE_TOLERANCE:
        problems.setdefault("scheduledAt", "The send time is in the past. Leave it empty to send now.")
    if draft.expires_at and draft.expires_at <= start:
        problems.setdefault("expiresAt", "The end time must be after the send time and in the future.")
    if draft.ack_due_at and not draft.requires_ack:
        problems.setdefault("ackDueAt", "A due date needs requiresAck.")
    elif draft.ack_due_at and draft.ack_due_at <= start:
        problems.setdefault("ackDueAt", "The due date must be after the send time and in the future.")
