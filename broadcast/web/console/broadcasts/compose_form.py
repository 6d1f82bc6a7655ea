"""Converts the compose form to the fields of `domain.message.parse_draft`, and its errors back to form fields.

A form has local times and lists of usernames; the domain has UTC and targets. Only local times are validated here: one
that a change to summer time skips does not exist, and one that occurs twice needs a choice.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from werkzeug.datastructures import MultiDict

from broadcast.base.cooperative import Yielder
from broadcast.base.errors import Invalid
from broadcast.domain import clock, message
from broadcast.domain.message import Draft, Priority, Target, parse_draft, parse_target
from broadcast.domain.time_zones import is_ambiguous_local_time, parse_local_time, parse_zone

TIME_FIELDS = ("scheduledAt", "expiresAt", "ackDueAt")
# Beside each time: the displayed moment, and which one is meant of a time that occurs twice.
_TIME_COMPANION_FIELDS = tuple(f"{name}{beside}" for name in TIME_FIELDS for beside in ("Kept", "Which"))
_TEXT_FIELDS = (
    "title", "content", "priority", "category", "timeZone", "when", "people", "exceptPeople", "targetType", "targetMatch",
    "escalation", "label1", "url1", "label2", "url2", *TIME_FIELDS, *_TIME_COMPANION_FIELDS,
)  # fmt: skip
_LIST_FIELDS = ("roles", "exceptRoles")
_CHECKBOX_FIELDS = ("requiresAck", "snapshot")
_NAME_SEPARATORS = re.compile(r"[\s,;]+")
_MAX_ROLES = 500  # ticked roles
# characters of a draft's field: what fits in the end and room to shorten it, and 50,000 usernames of 20
_MAX_CHARACTERS_BY_FIELD = {
    "title": 5 * message.MAX_TITLE_CHARACTERS, "content": 2 * message.MAX_CONTENT_BYTES,
    "people": 1_000_000, "exceptPeople": 1_000_000,
    "url1": 2 * message.MAX_URL_CHARACTERS, "url2": 2 * message.MAX_URL_CHARACTERS,
}  # fmt: skip
_DEFAULT_MAX_CHARACTERS = 200


def collect_values(form: MultiDict[str, str]) -> dict[str, Any]:
    """The form's values, to fill the form in again or to save them in a draft as typed."""
    typed: dict[str, Any] = {name: _strip_nul(form.get(name, "")) for name in _TEXT_FIELDS}
    typed |= {name: [_strip_nul(value) for value in form.getlist(name)] for name in _LIST_FIELDS}
    return typed | {name: bool(form.get(name)) for name in _CHECKBOX_FIELDS}


def check_lengths(typed: Mapping[str, Any]) -> None:
    """Raise Invalid for a field far longer than any message may have, which a draft does not store."""
    problems = {}
    for name in _TEXT_FIELDS:
        if len(typed[name]) > (maximum := _MAX_CHARACTERS_BY_FIELD.get(name, _DEFAULT_MAX_CHARACTERS)):
            problems[name] = f"This has {len(typed[name]):,} characters; a draft keeps at most {maximum:,}."
    for name in _LIST_FIELDS:
        if len(typed[name]) > _MAX_ROLES or max(map(len, typed[name]), default=0) > _DEFAULT_MAX_CHARACTERS:
            problems[name] = f"A draft keeps at most {_MAX_ROLES} roles."
    if problems:
        raise Invalid(problems)


def build_empty_form() -> dict[str, Any]:
    return collect_values(MultiDict({"targetType": "ALL", "targetMatch": "ANY", "priority": "NORMAL", "when": "now"}))


def from_typed(typed: Mapping[str, Any]) -> dict[str, Any]:
    """Saved form values, completed with every field that the form has now."""
    return {name: typed.get(name, empty) for name, empty in build_empty_form().items()}


def from_fields(fields: Mapping[str, Any], usernames: Mapping[int, str]) -> dict[str, Any]:
    """The form values of a broadcast's public fields, times in UTC. `usernames` maps the ids it names to usernames."""
    form = build_empty_form() | {name: fields[name] or "" for name in ("title", "content", "priority", "category")}
    form |= from_target(fields, usernames) | {"escalation": fields["escalation"] or ""}
    form |= {name: (fields[name] or "")[:16] for name in TIME_FIELDS} | {"timeZone": "UTC"}
    form |= {f"{name}Kept": fields[name] or "" for name in TIME_FIELDS} | {"requiresAck": fields["requiresAck"]}
    for n, link in enumerate(fields["actions"], 1):
        form |= {f"label{n}": link["label"], f"url{n}": link["url"]}
    return form | {"when": "later" if fields["scheduledAt"] else "now"}


def from_target(fields: Mapping[str, Any], usernames: Mapping[int, str] | None = None) -> dict[str, Any]:
    """The form values of an audience given in its public fields; empty ones may be missing."""
    named = [str((usernames or {}).get(n, n)) for n in fields.get("targetIds") or ()]
    is_by_role = fields["targetType"] == "ROLE"
    return {
        "targetType": fields["targetType"],
        "targetMatch": fields.get("targetMatch", "ANY"),
        "roles": named if is_by_role else [],
        "people": "" if is_by_role else "\n".join(named),
        "exceptRoles": fields.get("exceptRoles", []),
        "exceptPeople": "\n".join(str((usernames or {}).get(n, n)) for n in fields.get("exceptIds") or ()),
        "snapshot": bool(fields.get("snapshot")),
    }


def to_multidict(typed: Mapping[str, Any]) -> MultiDict[str, str]:
    """What a browser would post for these values."""
    multidict = MultiDict()
    for name, value in typed.items():
        if isinstance(value, list):
            multidict.setlist(name, value)
        elif value:
            multidict[name] = "true" if value is True else value
    return multidict


def parse_form(form: MultiDict[str, str], *, now: datetime) -> Draft:
    """Parse the compose form into a Draft. Raises Invalid with the form's own field names."""
    problems: dict[str, str] = {}
    zone = _parse_zone(form.get("timeZone", ""), problems)
    when = form.get("when") or "later"  # a form without the choice is sent at its start time, if it has one
    is_later = when == "later"
    raw = _collect_content_fields(form, zone, problems) | _collect_target_fields(form)
    raw["scheduledAt"] = _parse_time(form, "scheduledAt", zone, problems) if is_later else None
    raw["draft"], raw["escalation"] = form.get("draft") == "true", form.get("escalation") or None
    if when not in ("now", "later"):
        problems["scheduledAt"] = "Choose when it is sent: now or later."
    if form.get("when") == "later" and not form.get("scheduledAt"):
        problems["scheduledAt"] = "Choose when it is sent, or choose Now."
    try:
        draft = parse_draft(raw, now=now)
    except Invalid as invalid:
        problems = map_to_form_fields(invalid, form).fields | problems
    if problems:
        raise Invalid(problems)
    return draft


def read_content(form: MultiDict[str, str]) -> dict[str, Any]:
    """The content and end of a message, in public fields, for an edit of a live broadcast. Raises Invalid."""
    problems: dict[str, str] = {}
    fields = _collect_content_fields(form, _parse_zone(form.get("timeZone", ""), problems), problems)
    if problems:
        raise Invalid(problems)
    return fields


def read_audience(form: MultiDict[str, str]) -> Target:
    """The audience alone. Raises Invalid with the form's own field names."""
    try:
        return parse_target(_collect_target_fields(form))
    except Invalid as invalid:
        raise map_to_form_fields(invalid, form) from None


def collect_audience_fields(form: MultiDict[str, str]) -> dict[str, Any]:
    """The audience in public fields, without empty ones, as a saved audience is stored."""
    return {name: value for name, value in _collect_target_fields(form).items() if value}


def _collect_content_fields(form: MultiDict[str, str], zone: ZoneInfo, problems: dict[str, str]) -> dict[str, Any]:
    requires_ack = bool(form.get("requiresAck"))
    return {
        "title": form.get("title", ""),
        "content": form.get("content", ""),
        "priority": form.get("priority") or None,
        "category": form.get("category") or None,
        "actions": _collect_links(form),
        "requiresAck": requires_ack,
        "ackDueAt": _parse_time(form, "ackDueAt", zone, problems) if requires_ack else None,
        "expiresAt": _parse_time(form, "expiresAt", zone, problems),
    }


def map_to_form_fields(invalid: Invalid, form: MultiDict[str, str]) -> Invalid:
    """The same errors under the form's field names: `targetIds` is the roles or the users here."""
    fields = dict(invalid.fields)
    if "targetIds" in fields:
        fields["roles" if form.get("targetType") == "ROLE" else "people"] = fields.pop("targetIds")
    if "exceptIds" in fields:
        fields["exceptPeople"] = fields.pop("exceptIds")
    return Invalid(fields)


def split_usernames(text: str) -> list[str]:
    """Usernames as typed or pasted: separated by spaces, commas, semicolons or line ends.

    Stops above the allowed number, because such a list is refused anyway. Lets other greenlets run when they are many.
    """
    yielder = Yielder()
    names = [name for name in _NAME_SEPARATORS.split(text, maxsplit=message.MAX_TARGETS + 2) if name]
    yielder.maybe_yield()
    return names


def build_form_context(form: Mapping[str, Any], errors: Mapping[str, str]) -> dict[str, Any]:
    """What the fields of a message need on a page."""
    return {
        "form": form,
        "errors": errors,
        "utc": convert_times_to_utc(form),
        "twice": _find_ambiguous_times(form),
        "priorities": list(Priority),
    }


def convert_times_to_utc(form: Mapping[str, Any]) -> dict[str, str]:
    """The valid times of a form in UTC, for a page that shows them in the reader's own zone."""
    multidict, problems = to_multidict(form), {}
    zone = _parse_zone(str(form["timeZone"]), problems)
    times = {name: _parse_time(multidict, name, zone, problems) for name in TIME_FIELDS}
    return {name: moment for name, moment in times.items() if moment}


def _find_ambiguous_times(form: Mapping[str, Any]) -> set[str]:
    """The times of a form that occur twice in its zone, so that the page asks which one is meant."""
    zone = _parse_zone(str(form["timeZone"]), {})
    return {name for name in TIME_FIELDS if is_ambiguous_local_time(str(form[name]).strip(), zone)}


def _collect_target_fields(form: MultiDict[str, str]) -> dict[str, Any]:
    target_type, target_ids = form.get("targetType", ""), []
    if target_type == "ROLE":
        target_ids = form.getlist("roles")
    elif target_type == "SELECTED":
        target_ids = split_usernames(form.get("people", ""))
    return {
        "targetType": target_type,
        "targetIds": target_ids or None,
        "targetMatch": (form.get("targetMatch") or None) if target_type == "ROLE" else None,
        "exceptRoles": form.getlist("exceptRoles") or None,
        "exceptIds": split_usernames(form.get("exceptPeople", "")) or None,
        "snapshot": bool(form.get("snapshot")),
    }


def _collect_links(form: MultiDict[str, str]) -> list[dict[str, str]] | None:
    pairs = [(form.get(f"label{n}", "").strip(), form.get(f"url{n}", "").strip()) for n in (1, 2)]
    return [{"label": label, "url": url} for label, url in pairs if label or url] or None


def _strip_nul(text: str) -> str:
    return text.replace("\0", "")  # PostgreSQL text cannot hold NUL


def _parse_zone(name: str, problems: dict[str, str]) -> ZoneInfo:
    try:
        return parse_zone(name)
    except ValueError:
        problems["timeZone"] = "Unknown time zone. Times are read as UTC."
        return ZoneInfo("UTC")


def _parse_time(form: MultiDict[str, str], name: str, zone: ZoneInfo, problems: dict[str, str]) -> str | None:
    text = form.get(name, "").strip()
    if not text:
        return None
    try:
        return clock.to_rfc3339(
            parse_local_time(
                text, zone, occurrence=form.get(f"{name}Which", ""), original=_parse_displayed_time(form, name)
            )
        )
    except ValueError as problem:
        problems[name] = str(problem)
        return None


def _parse_displayed_time(form: MultiDict[str, str], name: str) -> datetime | None:
    """The moment that the form displayed; None for an empty or invalid value."""
    try:
        return clock.parse_rfc3339(form.get(f"{name}Kept", ""))
    except (ValueError, OverflowError):
        return None
