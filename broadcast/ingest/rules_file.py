"""Reads the TOML file of EVENT_RULES. An invalid value rejects the whole file, with the line and a sentence.

A partly read rule is worse than none: a misspelt `draft` would publish what needs a review.
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
from broadcast.domain.inbound import RateCap
from broadcast.domain.message import Priority, is_single_line, parse_draft
from broadcast.ingest.rules import ALLOW_ALL_RULE, AUDIENCE_FIELDS, Rule, Rules, TextTemplate

_PATTERN_FIELDS = ("source", "topic", "type")
_TEMPLATE_FIELDS = ("title", "content", "collapse_key")
_MAX_CAP_VALUES = {"limit": 1_000_000, "window_seconds": 86_400, "sender_limit": 1_000_000}  # the largest of each
_RENAMED_FIELDS = {"most": "limit", "per_seconds": "window_seconds", "most_of_sender": "sender_limit"}  # since 0.2.0
_DEFAULT_FIELDS = (*AUDIENCE_FIELDS, "priority", "category", "requiresAck")
_OTHER_FIELDS = ("audiences", "priorities", "draft", *_MAX_CAP_VALUES)
_RULE_FIELDS = (*_PATTERN_FIELDS, "from", "sender", "defaults", *_TEMPLATE_FIELDS, *_OTHER_FIELDS)
_MAX_PATTERN_CHARACTERS, _MAX_SENDER_CHARACTERS, _MAX_TEMPLATE_CHARACTERS = 250, 100, 10_000
_AUDIENCE_PATTERN = re.compile(r"everyone|people|role:[a-z][a-z0-9_-]{0,63}")
_SENDER_PATTERN = re.compile(r"account:\S{1,64}|topic:[A-Za-z0-9._*?\[\]!-]{1,249}")
_RULE_HEADING_PATTERN = re.compile(r"\s*\[\[\s*(rule|\"rule\"|'rule')\s*\]\]")
_ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)  # defaults contain no times, so any time will do
_MAX_NUMBER, _MAX_POWER = 10**18, 100  # in a template's arithmetic
_FORMAT_WIDTH_PATTERN = re.compile(r"%[^%a-zA-Z]*(?:\d{4}|\*)")  # width or precision in a format


class _SafeEnvironment(ImmutableSandboxedEnvironment):
    """Limits `*`, `**` and `%`: an event with a text where its rule expects a number could fill any memory."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str) and not _FORMAT_WIDTH_PATTERN.search(left):
            return left % right
        if not all(isinstance(side, int | float) and abs(side) <= _MAX_NUMBER for side in (left, right)):
            raise ValueError(f"{operator} is for numbers")
        if operator == "**" and abs(right) > _MAX_POWER:
            raise ValueError(f"** is for powers of at most {_MAX_POWER}")
        return super().call_binop(context, operator, left, right)


_environment = _SafeEnvironment(undefined=StrictUndefined, autoescape=False)


class _RuleError(Exception):
    """A field, if one field is wrong, and a sentence without its name."""

    def __init__(self, name: str | None, sentence: str):
        self.name, self.sentence = name, sentence


def load_rules(path: Path | None, *, should_allow_others: bool = False) -> Rules:
    """Read the rules, none without a file. Raises SettingsError with file, line, rule, field and problem."""
    if path is None:
        return ()
    try:
        text = path.read_bytes().decode()
        document = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as problem:
        raise SettingsError(f"EVENT_RULES: {path} cannot be read: {problem}") from None
    tables = document.pop("rule", [])
    if document:
        name = sorted(document)[0]
        hint = _suggest_nearest(name, ("rule",))
        raise SettingsError(f"EVENT_RULES: {path}: {name} is not read{hint} The file may contain only [[rule]] tables.")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SettingsError(f"EVENT_RULES: {path}: write each rule as a table that begins with [[rule]].")
    if not tables:
        raise SettingsError(f"EVENT_RULES: {path} has no [[rule]], so every event would be refused.")
    rules = []
    for index, table in enumerate(tables):
        try:
            rules.append(_parse_rule(table))
        except _RuleError as error:
            prefix = f"EVENT_RULES: {path}{_describe_line(text, index, len(tables), error.name)}: rule {index + 1}: "
            raise SettingsError(prefix + (f"{error.name} {error.sentence}" if error.name else error.sentence)) from None
    return (*rules, ALLOW_ALL_RULE) if should_allow_others else tuple(rules)


def _describe_line(text: str, rule_index: int, rule_count: int, field: str | None) -> str:
    """`, line 7` for a field of a rule, which tomllib does not report; nothing when it is unknown."""
    lines = text.splitlines()
    rule_starts = [n for n, line in enumerate(lines) if _RULE_HEADING_PATTERN.match(line)]
    if len(rule_starts) != rule_count:  # a multi-line string contains a rule header
        return ""
    start, end = [*rule_starts, len(lines)][rule_index : rule_index + 2]
    field_pattern = re.compile(rf"""\s*(\[rule\.)?["']?{re.escape(field)}\b""") if field else None
    field_lines = (n for n in range(start + 1, end) if field_pattern and field_pattern.match(lines[n]))
    return f", line {next(field_lines, start) + 1}"


def _parse_rule(table: dict[str, Any]) -> Rule:
    for name in table:
        if name not in _RULE_FIELDS:
            if name in _RENAMED_FIELDS:
                raise _RuleError(name, f"is now {_RENAMED_FIELDS[name]}.")
            raise _RuleError(name, f"is not a field of a rule{_suggest_nearest(name, _RULE_FIELDS)}")
    patterns = {name: _read_patterns(name, table[name]) for name in _PATTERN_FIELDS if name in table}
    if not patterns:
        raise _RuleError(None, "say which events it matches: source, topic or type.")
    rate_cap = _read_rate_cap(table, patterns)  # its count belongs to the patterns as they are written
    if "source" in patterns:
        patterns["source"] = tuple(map(event_source.canonicalize_source, patterns["source"]))
    rule = Rule(
        patterns=patterns,
        senders=_read_senders(table["from"]) if "from" in table else None,
        sender_name=_read_line("sender", table["sender"], _MAX_SENDER_CHARACTERS) if "sender" in table else None,
        defaults=_read_defaults(table.get("defaults", {})),
        templates={name: _read_template(name, table[name]) for name in _TEMPLATE_FIELDS if name in table},
        audiences=_read_choices(table, "audiences", _AUDIENCE_PATTERN.fullmatch, "everyone, people, or role:NAME"),
        priorities=_read_choices(table, "priorities", set(Priority).__contains__, ", ".join(Priority)),
        is_draft_only=_read_flag("draft", table.get("draft", False)),
        rate_cap=rate_cap,
    )
    if ("title" in rule.templates) != ("content" in rule.templates):
        raise _RuleError(None, "set both title and content, or neither.")
    _check_defaults(rule)
    return rule


def _suggest_nearest(name: str, known: tuple[str, ...]) -> str:
    known_by_spelling = {one.lower().replace("_", ""): one for one in known}
    matches = get_close_matches(name.lower().replace("_", "").replace("-", ""), known_by_spelling, n=1, cutoff=0.6)
    return f"; did you mean {known_by_spelling[matches[0]]}?" if matches else f"; use one of {', '.join(known)}."


def _abbreviate(value: Any) -> str:
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _read_line(name: str, value: Any, max_characters: int) -> str:
    if not isinstance(value, str):
        raise _RuleError(name, f"must be text in quotes, but is {_abbreviate(value)}.")
    if not 0 < len(value) <= max_characters or not value.strip() or not is_single_line(value):
        raise _RuleError(name, f"must be 1 to {max_characters} characters in one line, but is {_abbreviate(value)}.")
    return value


def _read_patterns(name: str, value: Any) -> tuple[str, ...]:
    """One pattern, or a list of them."""
    if value == []:
        raise _RuleError(name, "is an empty list, so the rule would match nothing.")
    patterns = value if isinstance(value, list) else [value]
    return tuple(_read_line(name, pattern, _MAX_PATTERN_CHARACTERS) for pattern in patterns)


def _read_senders(value: Any) -> tuple[str, ...]:
    requirement = "must name accounts and topics, like account:grid-bot or topic:grid.*"
    senders = _read_patterns("from", value)
    for sender in senders:
        if not _SENDER_PATTERN.fullmatch(sender):
            raise _RuleError("from", f"{requirement}, but has {_abbreviate(sender)}.")
    return tuple(one.lower() if one.startswith("account:") else one for one in senders)


def _read_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _RuleError(name, f"must be true or false, without quotes, but is {_abbreviate(value)}.")
    return value


def _read_template(name: str, value: Any) -> TextTemplate:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEMPLATE_CHARACTERS or not value.strip():
        requirement = f"must be text of 1 to {_MAX_TEMPLATE_CHARACTERS:,} characters"
        raise _RuleError(name, f"{requirement}, but is {_abbreviate(value)}.")
    try:
        return TextTemplate(value, _environment.from_string(value))
    except (TemplateError, RecursionError, ValueError, ArithmeticError) as problem:
        raise _RuleError(name, f"is not a valid template: {problem}".rstrip(".") + ".") from None


def _read_choices(
    table: Mapping[str, Any], name: str, is_valid: Callable[[str], Any], requirement: str
) -> frozenset[str] | None:
    if name not in table:
        return None
    values = table[name]
    if not isinstance(values, list) or not values:
        raise _RuleError(name, f"must be a list of {requirement}, but is {_abbreviate(values)}.")
    for value in values:
        if not isinstance(value, str) or not is_valid(value):
            raise _RuleError(name, f"must be a list of {requirement}, but has {_abbreviate(value)}.")
    return frozenset(values)


def _read_rate_cap(table: Mapping[str, Any], match_patterns: Mapping[str, tuple[str, ...]]) -> RateCap | None:
    """A rate cap, counted under its rule's patterns, so that the count survives other changes of the file."""
    values = {name: table[name] for name in _MAX_CAP_VALUES if name in table}
    if not values:
        return None
    for name, value in values.items():
        if type(value) is not int or not 0 < value <= _MAX_CAP_VALUES[name]:
            requirement = f"must be a whole number from 1 to {_MAX_CAP_VALUES[name]:,}"
            raise _RuleError(name, f"{requirement}, but is {_abbreviate(value)}.")
    if not {"limit", "window_seconds"} <= values.keys():
        raise _RuleError(sorted(values)[0], "can only be used together with limit and window_seconds.")
    if values.get("sender_limit", values["limit"]) < values["limit"]:
        raise _RuleError("sender_limit", f"must be at least limit, which is {values['limit']:,}.")
    normalised_patterns = [
        (name, patterns[0] if len(patterns) == 1 else patterns) for name, patterns in match_patterns.items()
    ]
    rule_key = hashlib.sha256(repr(sorted(normalised_patterns)).encode()).hexdigest()[:16]
    return RateCap(**values, rule=rule_key)


def _read_defaults(table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise _RuleError("defaults", f'must be a table, like {{ priority = "LOW" }}, but is {_abbreviate(table)}.')
    for name in table:
        if name not in _DEFAULT_FIELDS:
            hint = _suggest_nearest(name, _DEFAULT_FIELDS)
            raise _RuleError("defaults", f"has {name}, which is not a valid default{hint}")
    return table


def _check_defaults(rule: Rule) -> None:
    """Check that an event could have sent the defaults itself, and that this rule allows them."""
    if not rule.defaults:
        return
    if "targetIds" in rule.defaults and "targetType" not in rule.defaults:
        raise _RuleError("defaults", "has targetIds without a targetType.")
    try:
        draft = parse_draft({"title": "x", "content": "x", "targetType": "ALL"} | rule.defaults, now=_ANY_TIME)
    except Invalid as invalid:
        name, sentence = next(iter(invalid.fields.items()))
        raise _RuleError("defaults", f"has {name} = {_abbreviate(rule.defaults.get(name))}. {sentence}") from None
    limit_fields = [
        name for name, default in (("priorities", "priority"), ("audiences", "targetType")) if default in rule.defaults
    ]
    limiting_rule = Rule(**{name: getattr(rule, name) for name in limit_fields})
    if (refusal := limiting_rule.find_refusal(draft)) is not None:
        raise _RuleError("defaults", f"conflicts with the rule. {refusal}")
