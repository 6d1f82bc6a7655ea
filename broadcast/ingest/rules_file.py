"""The TOML file of EVENT_RULES: every value is what its field wants, or the file is refused, with the line and a sentence.

Half a rule is worse than none: a misspelt `draft` publishes what somebody was to look at first.
"""

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from broadcast.base.errors import Invalid
from broadcast.config.settings import SettingsError
from broadcast.domain import event_source
from broadcast.domain.inbound import Cap
from broadcast.domain.message import Priority, is_one_line, read_draft
from broadcast.ingest.rules import ANYTHING, AUDIENCE, Rule, Rules, Text

_FITS = ("source", "topic", "type")
_TEMPLATES = ("title", "content", "collapse_key")
_CAP = {"most": 1_000_000, "per_seconds": 86_400, "most_of_sender": 1_000_000}  # the largest of each
_DEFAULTS = (*AUDIENCE, "priority", "category", "requiresAck")
_FIELDS = (*_FITS, "from", "sender", "defaults", *_TEMPLATES, "audiences", "priorities", "draft", *_CAP)
_PATTERN_CHARACTERS, _SENDER_CHARACTERS, _TEMPLATE_CHARACTERS = 250, 100, 10_000
_AUDIENCES = re.compile(r"everyone|people|role:[a-z][a-z0-9_-]{0,63}")
_SENDERS = re.compile(r"account:\S{1,64}|topic:[A-Za-z0-9._*?\[\]!-]{1,249}")
_BEGINNING = re.compile(r"\s*\[\[\s*(rule|\"rule\"|'rule')\s*\]\]")
_A_TIME = datetime(2026, 1, 1, tzinfo=UTC)  # defaults hold no times, so that any does
_MOST_NUMBER, _MOST_POWER = 10**18, 100  # that a template calculates with
_WIDTH = re.compile(r"%[^%a-zA-Z]*(?:\d{4}|\*)")  # of a value in a format


class _Environment(ImmutableSandboxedEnvironment):
    """Multiplies numbers only: an event that sends a text where its rule expects a number would fill any memory."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str) and not _WIDTH.search(left):
            return left % right
        if not all(isinstance(side, int | float) and abs(side) <= _MOST_NUMBER for side in (left, right)):
            raise ValueError(f"{operator} is for numbers")
        if operator == "**" and abs(right) > _MOST_POWER:
            raise ValueError(f"** is for powers of at most {_MOST_POWER}")
        return super().call_binop(context, operator, left, right)


_templates = _Environment(undefined=StrictUndefined, autoescape=False)


class _Wrong(Exception):
    """A field, if it is one field's fault, and a sentence without its name."""

    def __init__(self, name: str | None, sentence: str):
        self.name, self.sentence = name, sentence


def load(path: Path | None, *, lets_others_through: bool = False) -> Rules:
    """Read the rules; none without a file. With `lets_others_through`, the last is one for all that the file says nothing of.

    Raises SettingsError naming the file, the line, the rule and the field, and what is wrong with it.
    """
    if path is None:
        return ()
    try:
        text = path.read_bytes().decode()
        whole = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as problem:
        raise SettingsError(f"EVENT_RULES: {path} cannot be read: {problem}") from None
    tables = whole.pop("rule", [])
    if whole:
        name = sorted(whole)[0]
        hint = _nearest(name, ("rule",))
        raise SettingsError(
            f"EVENT_RULES: {path}: {name} is not read{hint} The file holds [[rule]] tables and nothing else."
        )
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SettingsError(f"EVENT_RULES: {path}: write each rule as a table that begins with [[rule]].")
    if not tables:
        raise SettingsError(f"EVENT_RULES: {path} holds no [[rule]], so that every event would be refused.")
    lines = _Lines(text, len(tables))
    rules = tuple(_rule(table, n, path, lines) for n, table in enumerate(tables, 1))
    return (*rules, ANYTHING) if lets_others_through else rules


class _Lines:
    """Where rules and their fields stand in the file: tomllib does not say."""

    def __init__(self, text: str, count: int):
        self._lines = text.splitlines()
        self._begins = [n for n, line in enumerate(self._lines) if _BEGINNING.match(line)]
        self._is_known = len(self._begins) == count  # else one stands inside a text of several lines

    def of(self, rule: int, field: str | None) -> str:
        """`, line 7`, or nothing when that cannot be told."""
        if not self._is_known:
            return ""
        begin = self._begins[rule - 1]
        end = self._begins[rule] if rule < len(self._begins) else len(self._lines)
        wanted = field and re.compile(rf"""\s*(\[rule\.)?["']?{re.escape(field)}\b""")
        at = next((n for n in range(begin + 1, end) if wanted and wanted.match(self._lines[n])), begin)
        return f", line {at + 1}"


def _rule(table: dict[str, Any], n: int, path: Path, lines: _Lines) -> Rule:
    try:
        return _read(table)
    except _Wrong as wrong:
        where = f"EVENT_RULES: {path}{lines.of(n, wrong.name)}: rule {n}: "
        raise SettingsError(where + (f"{wrong.name} {wrong.sentence}" if wrong.name else wrong.sentence)) from None


def _read(table: dict[str, Any]) -> Rule:
    for name in table:
        if name not in _FIELDS:
            raise _Wrong(name, f"is not a field of a rule{_nearest(name, _FIELDS)}")
    fits = {name: _one_or_more(name, table[name], _pattern) for name in _FITS if name in table}
    if not fits:
        raise _Wrong(None, "say what it is for: source, topic or type.")
    rule = Rule(
        fits=fits | {"source": tuple(map(event_source.canonical, fits["source"]))} if "source" in fits else fits,
        senders=_senders(table["from"]) if "from" in table else None,
        sender=_line("sender", table["sender"], _SENDER_CHARACTERS) if "sender" in table else None,
        defaults=_defaults(table.get("defaults", {})),
        templates={name: _template(name, table[name]) for name in _TEMPLATES if name in table},
        audiences=_choices(table, "audiences", _AUDIENCES.fullmatch, "everyone, people, or role:NAME"),
        priorities=_choices(table, "priorities", set(Priority).__contains__, ", ".join(Priority)),
        draft=_flag("draft", table.get("draft", False)),
        cap=_cap(table, fits),
    )
    if ("title" in rule.templates) != ("content" in rule.templates):
        raise _Wrong(None, "title and content are templates together, or neither is.")
    _check_defaults(rule)
    return rule


def _nearest(name: str, known: tuple[str, ...]) -> str:
    spelt = {one.lower().replace("_", ""): one for one in known}
    found = get_close_matches(name.lower().replace("_", "").replace("-", ""), spelt, n=1, cutoff=0.6)
    return f"; did you mean {spelt[found[0]]}?" if found else f"; there are {', '.join(known)}."


def _shown(value: Any) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _line(name: str, value: Any, most: int) -> str:
    if not isinstance(value, str):
        raise _Wrong(name, f"must be text in quotes, and is {_shown(value)}.")
    if not 0 < len(value) <= most or not value.strip() or not is_one_line(value):
        raise _Wrong(name, f"must be 1 to {most} characters in one line, and is {_shown(value)}.")
    return value


def _pattern(name: str, value: Any) -> str:
    return _line(name, value, _PATTERN_CHARACTERS)


def _one_or_more(name: str, value: Any, read: Callable[[str, Any], str]) -> tuple[str, ...]:
    if not isinstance(value, list):
        return (read(name, value),)
    if not value:
        raise _Wrong(name, "is an empty list, so that the rule would fit nothing.")
    return tuple(read(name, one) for one in value)


def _senders(value: Any) -> tuple[str, ...]:
    wanted = "must name accounts and topics, like account:grid-bot or topic:grid.*"
    found = _one_or_more("from", value, _pattern)
    for one in found:
        if not _SENDERS.fullmatch(one):
            raise _Wrong("from", f"{wanted}, and has {_shown(one)}.")
    return tuple(one.lower() if one.startswith("account:") else one for one in found)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong(name, f"must be true or false, without quotes, and is {_shown(value)}.")
    return value


def _template(name: str, value: Any) -> Text:
    if not isinstance(value, str) or not 0 < len(value) <= _TEMPLATE_CHARACTERS or not value.strip():
        raise _Wrong(name, f"must be text of 1 to {_TEMPLATE_CHARACTERS:,} characters, and is {_shown(value)}.")
    try:
        return Text(value, _templates.from_string(value))
    except (TemplateError, RecursionError, ValueError, ArithmeticError) as problem:
        raise _Wrong(name, f"is no template: {problem}".rstrip(".") + ".") from None


def _choices(table: Mapping[str, Any], name: str, is_fit: Callable[[str], Any], wanted: str) -> frozenset[str] | None:
    if name not in table:
        return None
    values = table[name]
    if not isinstance(values, list) or not values:
        raise _Wrong(name, f"must be a list of {wanted}, and is {_shown(values)}.")
    for value in values:
        if not isinstance(value, str) or not is_fit(value):
            raise _Wrong(name, f"must be a list of {wanted}, and has {_shown(value)}.")
    return frozenset(values)


def _cap(table: Mapping[str, Any], fits: Mapping[str, tuple[str, ...]]) -> Cap | None:
    """Counted under the patterns of its rule, so that the count outlives a change of anything else in the file."""
    given = {name: table[name] for name in _CAP if name in table}
    if not given:
        return None
    for name, value in given.items():
        if type(value) is not int or not 0 < value <= _CAP[name]:
            raise _Wrong(name, f"must be a whole number from 1 to {_CAP[name]:,}, and is {_shown(value)}.")
    if not {"most", "per_seconds"} <= given.keys():
        raise _Wrong(sorted(given)[0], "makes a cap only together with most and per_seconds.")
    if given.get("most_of_sender", given["most"]) < given["most"]:
        raise _Wrong("most_of_sender", f"must be at least most, which is {given['most']:,}.")
    single = [(name, patterns[0] if len(patterns) == 1 else patterns) for name, patterns in fits.items()]
    rule = hashlib.sha256(repr(sorted(single)).encode()).hexdigest()[:16]
    return Cap(**given, rule=rule)


def _defaults(table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise _Wrong("defaults", f'must be a table, like {{ priority = "LOW" }}, and is {_shown(table)}.')
    for name in table:
        if name not in _DEFAULTS:
            raise _Wrong("defaults", f"has {name}, which is no default{_nearest(name, _DEFAULTS)}")
    return table


def _check_defaults(rule: Rule) -> None:
    """A default is what an event may leave out, so it must be what the event could have said, and may say by this rule."""
    if not rule.defaults:
        return
    if "targetIds" in rule.defaults and "targetType" not in rule.defaults:
        raise _Wrong("defaults", "has targetIds without a targetType.")
    try:
        draft = read_draft({"title": "x", "content": "x", "targetType": "ALL"} | rule.defaults, now=_A_TIME)
    except Invalid as invalid:
        name, sentence = next(iter(invalid.fields.items()))
        raise _Wrong("defaults", f"has {name} = {_shown(rule.defaults.get(name))}. {sentence}") from None
    without = [
        name for name, default in (("priorities", "priority"), ("audiences", "targetType")) if default in rule.defaults
    ]
    bounded = Rule(**{name: getattr(rule, name) for name in without})
    if (refusal := bounded.refusal(draft)) is not None:
        raise _Wrong("defaults", f"asks for what the rule refuses. {refusal}")
