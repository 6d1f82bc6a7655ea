"""The compose form as the fields that `domain.message.read_draft` understands, and its mistakes back to the form's fields.

A form speaks of local times and lists of usernames; the domain of UTC and targets. Nothing is validated here but the clock:
a local time that a change to summer time leaves out has no answer, and one that it has twice needs another word.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from werkzeug.datastructures import MultiDict

from broadcast.base.cooperative import Breath
from broadcast.base.errors import Invalid
from broadcast.domain import clock
from broadcast.domain.message import (
    CONTENT_BYTES,
    MOST_TARGETS,
    TITLE_CHARACTERS,
    URL_CHARACTERS,
    Draft,
    Target,
    read_draft,
    read_target,
)
from broadcast.domain.time_zones import comes_twice, read_local, read_zone

TIMES = ("scheduledAt", "expiresAt", "ackDueAt")
# Beside each time: the moment that it was shown for, and which one is meant of a time that comes twice.
_BESIDE_TIMES = tuple(f"{name}{beside}" for name in TIMES for beside in ("Kept", "Which"))
_TEXTS = (
    "title", "content", "priority", "category", "timeZone", "when", "people", "exceptPeople", "targetType", "targetMatch",
    "label1", "url1", "label2", "url2", *TIMES, *_BESIDE_TIMES,
)  # fmt: skip
_LISTS = ("roles", "exceptRoles")
_TICKS = ("requiresAck", "snapshot")
_BETWEEN_NAMES = re.compile(r"[\s,;]+")
_MOST_CHOSEN = 500  # roles ticked
# characters of one field that a draft keeps: what fits in the end and room to shorten it, and 50,000 names of 20
_MOST_TYPED = {
    "title": 5 * TITLE_CHARACTERS, "content": 2 * CONTENT_BYTES, "people": 1_000_000, "exceptPeople": 1_000_000,
    "url1": 2 * URL_CHARACTERS, "url2": 2 * URL_CHARACTERS,
}  # fmt: skip
_MOST_TYPED_ELSE = 200


def as_typed(form: MultiDict[str, str]) -> dict[str, Any]:
    """The form's values, to fill it in again, or to keep them in a draft as they are."""
    typed: dict[str, Any] = {name: _storable(form.get(name, "")) for name in _TEXTS}
    typed |= {name: [_storable(value) for value in form.getlist(name)] for name in _LISTS}
    return typed | {name: bool(form.get(name)) for name in _TICKS}


def check_fits(typed: Mapping[str, Any]) -> None:
    """Raise Invalid for a field far longer than any message has it: a draft neither keeps that nor cuts it in silence."""
    problems = {}
    for name in _TEXTS:
        if len(typed[name]) > (most := _MOST_TYPED.get(name, _MOST_TYPED_ELSE)):
            problems[name] = f"This has {len(typed[name]):,} characters; a draft keeps at most {most:,}."
    for name in _LISTS:
        if len(typed[name]) > _MOST_CHOSEN or max(map(len, typed[name]), default=0) > _MOST_TYPED_ELSE:
            problems[name] = f"A draft keeps at most {_MOST_CHOSEN} roles."
    if problems:
        raise Invalid(problems)


def empty() -> dict[str, Any]:
    return as_typed(MultiDict({"targetType": "ALL", "targetMatch": "ANY", "priority": "NORMAL", "when": "now"}))


def from_typed(typed: Mapping[str, Any]) -> dict[str, Any]:
    """A kept form with every field that the form has now."""
    return empty() | {name: value for name, value in typed.items() if name in (*_TEXTS, *_LISTS, *_TICKS)}


def from_fields(fields: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    """A stored broadcast, in its public fields, as the form that says the same; its times are in UTC.

    `names` are the usernames of the people it names.
    """
    form = empty() | {name: fields[name] or "" for name in ("title", "content", "priority", "category", "targetType")}
    by_role = fields["targetType"] == "ROLE"
    form |= {"roles": fields["targetIds"] if by_role else [], "exceptRoles": fields["exceptRoles"]}
    form["people"] = "" if by_role else "\n".join(names.get(n, str(n)) for n in fields["targetIds"])
    form["exceptPeople"] = "\n".join(names.get(n, str(n)) for n in fields["exceptIds"])
    form |= {name: (fields[name] or "")[:16] for name in TIMES} | {"timeZone": "UTC"}
    form |= {f"{name}Kept": fields[name] or "" for name in TIMES}
    form |= {name: fields[name] for name in ("requiresAck", "snapshot", "targetMatch")}
    for n, link in enumerate(fields["actions"], 1):
        form |= {f"label{n}": link["label"], f"url{n}": link["url"]}
    return form | {"when": "later" if fields["scheduledAt"] else "now"}


def to_multi(typed: Mapping[str, Any]) -> MultiDict[str, str]:
    """What a browser would send for these values."""
    sent = MultiDict()
    for name, value in typed.items():
        if isinstance(value, list):
            sent.setlist(name, value)
        elif value:
            sent[name] = "true" if value is True else value
    return sent


def read(form: MultiDict[str, str], *, now: datetime) -> Draft:
    """Make a Draft of the compose form. Raises Invalid with the form's own field names."""
    problems: dict[str, str] = {}
    zone = _zone(form.get("timeZone", ""), problems)
    when = form.get("when") or "later"  # a form without the choice is sent at its time, if it has one
    is_later = when == "later"
    raw = _content_fields(form, zone, problems) | _target_fields(form)
    raw["scheduledAt"] = _moment(form, "scheduledAt", zone, problems) if is_later else None
    raw["draft"] = form.get("draft") == "true"
    if when not in ("now", "later"):
        problems["scheduledAt"] = "Choose when it is sent: now or later."
    if form.get("when") == "later" and not form.get("scheduledAt"):
        problems["scheduledAt"] = "Choose when it is sent, or choose Now."
    try:
        draft = read_draft(raw, now=now)
    except Invalid as invalid:
        problems = on_form(invalid, form).fields | problems
    if problems:
        raise Invalid(problems)
    return draft


def read_content(form: MultiDict[str, str]) -> dict[str, Any]:
    """The words and the end of a message, in public fields, as an edit of a live one may change them. Raises Invalid."""
    problems: dict[str, str] = {}
    fields = _content_fields(form, _zone(form.get("timeZone", ""), problems), problems)
    if problems:
        raise Invalid(problems)
    return fields


def read_audience(form: MultiDict[str, str]) -> Target:
    """The audience alone. Raises Invalid with the form's own field names."""
    try:
        return read_target(_target_fields(form))
    except Invalid as invalid:
        raise on_form(invalid, form) from None


def audience_fields(form: MultiDict[str, str]) -> dict[str, Any]:
    """The audience in public fields, without those that say nothing: how a named audience is kept."""
    return {name: value for name, value in _target_fields(form).items() if value}


def _content_fields(form: MultiDict[str, str], zone: ZoneInfo, problems: dict[str, str]) -> dict[str, Any]:
    requires_ack = bool(form.get("requiresAck"))
    return {
        "title": form.get("title", ""),
        "content": form.get("content", ""),
        "priority": form.get("priority") or None,
        "category": form.get("category") or None,
        "actions": _links(form),
        "requiresAck": requires_ack,
        "ackDueAt": _moment(form, "ackDueAt", zone, problems) if requires_ack else None,
        "expiresAt": _moment(form, "expiresAt", zone, problems),
    }


def on_form(invalid: Invalid, form: MultiDict[str, str]) -> Invalid:
    """The same mistakes under the names of the form's fields: `targetIds` is the roles or the people here."""
    fields = dict(invalid.fields)
    if "targetIds" in fields:
        fields["roles" if form.get("targetType") == "ROLE" else "people"] = fields.pop("targetIds")
    if "exceptIds" in fields:
        fields["exceptPeople"] = fields.pop("exceptIds")
    return Invalid(fields)


def split_names(text: str) -> list[str]:
    """Usernames as people type and paste them: between spaces, commas, semicolons or line ends.

    More than may be named are not taken apart to the end, only to be refused. Lets other greenlets run when they are many.
    """
    breath = Breath()
    names = [name for name in _BETWEEN_NAMES.split(text, maxsplit=MOST_TARGETS + 2) if name]
    breath.take()
    return names


def utc_of(form: Mapping[str, Any]) -> dict[str, str]:
    """The times of a form in UTC, as far as they are any: for a page that shows them in the reader's own zone."""
    multi, ignored = to_multi(form), {}
    zone = _zone(str(form["timeZone"]), ignored)
    found = {name: _moment(multi, name, zone, ignored) for name in TIMES}
    return {name: moment for name, moment in found.items() if moment}


def twice_of(form: Mapping[str, Any]) -> set[str]:
    """Which times of a form come twice in its zone, so that the page asks which one is meant."""
    zone = _zone(str(form["timeZone"]), {})
    return {name for name in TIMES if comes_twice(str(form[name]).strip(), zone)}


def _target_fields(form: MultiDict[str, str]) -> dict[str, Any]:
    kind = form.get("targetType", "")
    return {
        "targetType": kind,
        "targetIds": _targets(form) or None,
        "targetMatch": (form.get("targetMatch") or None) if kind == "ROLE" else None,
        "exceptRoles": form.getlist("exceptRoles") or None,
        "exceptIds": split_names(form.get("exceptPeople", "")) or None,
        "snapshot": bool(form.get("snapshot")),
    }


def _targets(form: MultiDict[str, str]) -> list[str]:
    match form.get("targetType"):
        case "ROLE":
            return form.getlist("roles")
        case "SELECTED":
            return split_names(form.get("people", ""))
    return []


def _links(form: MultiDict[str, str]) -> list[dict[str, str]] | None:
    pairs = [(form.get(f"label{n}", "").strip(), form.get(f"url{n}", "").strip()) for n in (1, 2)]
    return [{"label": label, "url": url} for label, url in pairs if label or url] or None


def _storable(text: str) -> str:
    return text.replace("\0", "")  # PostgreSQL has no text with NUL


def _zone(name: str, problems: dict[str, str]) -> ZoneInfo:
    try:
        return read_zone(name)
    except ValueError:
        problems["timeZone"] = "This time zone is not known; times are read as UTC."
        return ZoneInfo("UTC")


def _moment(form: MultiDict[str, str], name: str, zone: ZoneInfo, problems: dict[str, str]) -> str | None:
    text = form.get(name, "").strip()
    if not text:
        return None
    try:
        return clock.to_wire(read_local(text, zone, which=form.get(f"{name}Which", ""), kept=_kept(form, name)))
    except ValueError as problem:
        problems[name] = str(problem)
        return None


def _kept(form: MultiDict[str, str], name: str) -> datetime | None:
    """The moment that the form was drawn with; None for none, and for what no page of ours wrote."""
    try:
        return clock.from_wire(form.get(f"{name}Kept", ""))
    except (ValueError, OverflowError):
        return None
