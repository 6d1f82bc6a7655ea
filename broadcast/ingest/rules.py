"""Rules of sources: what an event of theirs may leave out, how it reads, what it may ask for, how much (docs/events.md).

They come from the TOML file of EVENT_RULES, read strictly and once, at start. The first rule that fits an event holds for it;
without any, the contract alone does. Templates are the operator's, their values a stranger's: the sandbox lets values be
shown and nothing else.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from broadcast.domain.arrival import Cap
from broadcast.domain.message import Draft, Priority, TargetType
from broadcast.settings import SettingsError

_FITS = ("source", "topic", "type")  # patterns as of a shell, all of which must fit
_DEFAULTS = ("targetType", "targetIds", "priority", "category", "requiresAck")
_AUDIENCE = ("targetType", "targetIds")
_AUDIENCES = "everyone, people, or role:NAME"
_TEMPLATES = ("title", "content", "collapse_key")
_MOST_NUMBER, _MOST_POWER = 10**18, 100  # that a template calculates with
_CAP = {"most": 1_000_000, "per_seconds": 86_400}  # the largest: broadcasts, and seconds of a day
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


class TemplateFailed(Exception):
    """The data does not have what the template of its rule shows; the message says what."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`audiences` and `priorities` are what the source may use; None allows all.

    `templates` are title, content and collapse key, of which the first two come together; `cap` limits what goes out.
    """

    fits: Mapping[str, str] = field(default_factory=dict)
    sender: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    templates: Mapping[str, "Text"] = field(default_factory=dict)
    audiences: frozenset[str] | None = None
    priorities: frozenset[str] | None = None
    draft: bool = False
    cap: Cap | None = None

    @property
    def is_translator(self) -> bool:
        """Whether it makes messages of data that knows nothing of messages."""
        return "title" in self.templates

    def fits_event(self, values: Mapping[str, str | None]) -> bool:
        return all(fnmatchcase(values[name] or "", pattern) for name, pattern in self.fits.items())

    def shape(self, data: Any) -> Any:
        """The fields of a message, of an event's data: rendered if there are templates, and with what it left out.

        Raises TemplateFailed.
        """
        if self.is_translator:
            data = {name: self.templates[name].render(data=data) for name in ("title", "content")}
        if not isinstance(data, Mapping):
            return data
        given = {name: value for name, value in data.items() if value is not None}
        is_whole = "targetType" in given  # then the default's names are of another audience
        left = {name: value for name, value in self.defaults.items() if not (is_whole and name in _AUDIENCE)}
        return left | given

    def refusal(self, draft: Draft) -> str | None:
        """Why this source may not send this; None if it may."""
        if self.priorities is not None and draft.priority not in self.priorities:
            return f"Its source may not use the priority {draft.priority}."
        asked = _audiences_of(draft)
        if self.audiences is not None and not asked <= self.audiences:
            return f"Its source may not send to {', '.join(sorted(asked - self.audiences))}."
        return None

    def collapse_key(self, data: Any, type: str) -> str | None:
        """The key under which events of this rule share a card, None without one. Raises TemplateFailed."""
        if "collapse_key" not in self.templates:
            return None
        return self.templates["collapse_key"].render(data=data, type=type).strip() or None


@dataclass(frozen=True, slots=True)
class Text:
    """A template, and how it was `typed`."""

    typed: str
    template: Template

    def render(self, **values: Any) -> str:
        """Raises TemplateFailed."""
        try:
            return self.template.render(values)
        except Exception as problem:  # whatever a template does with a stranger's values, their event alone pays for it
            raise TemplateFailed(f"The data does not fit the template of its rule: {problem}"[:300]) from None


NO_RULE = Rule()
Rules = tuple[Rule, ...]


def rule_for(rules: Rules, *, source: str, topic: str | None, type: str) -> Rule:
    """The first that fits, or one that changes nothing."""
    values = {"source": source, "topic": topic, "type": type}
    return next((rule for rule in rules if rule.fits_event(values)), NO_RULE)


def load(path: Path | None) -> Rules:
    """Read the rules; none without a file. Raises SettingsError naming the rule and what is wrong with it."""
    if path is None:
        return ()
    try:
        whole = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise SettingsError(f"EVENT_RULES: {path} cannot be read: {problem}") from None
    tables = whole.pop("rule", [])
    if whole or not isinstance(tables, list):
        raise SettingsError("EVENT_RULES: the file holds [[rule]] tables and nothing else.")
    return tuple(_rule(table, n) for n, table in enumerate(tables, 1))


def _rule(table: Any, n: int) -> Rule:
    try:
        return _read_rule(dict(table))
    except (TypeError, ValueError, TemplateError) as problem:
        raise SettingsError(f"EVENT_RULES: rule {n}: {problem}") from None


def _read_rule(table: dict[str, Any]) -> Rule:
    fits = {name: _text(table.pop(name), name) for name in _FITS if name in table}
    rule = Rule(
        fits=fits,
        sender=_text(table.pop("sender"), "sender") if "sender" in table else None,
        defaults=_defaults(table.pop("defaults", {})),
        templates={name: _template(table.pop(name), name) for name in _TEMPLATES if name in table},
        audiences=_choices(table, "audiences", _is_audience, _AUDIENCES),
        priorities=_choices(table, "priorities", set(Priority).__contains__, ", ".join(Priority)),
        draft=table.pop("draft", False) is True,
        cap=_cap(table, fits),
    )
    if table:
        raise ValueError(f"there is no field {sorted(table)[0]}.")
    if not rule.fits:
        raise ValueError("say whom it is for: source, topic or type.")
    if ("title" in rule.templates) != ("content" in rule.templates):
        raise ValueError("title and content are templates together, or neither is.")
    return rule


def _template(value: Any, name: str) -> Text:
    typed = _text(value, name)
    return Text(typed, _templates.from_string(typed))


def _cap(table: dict[str, Any], fits: Mapping[str, str]) -> Cap | None:
    """Counted under the patterns of its rule, so that the count outlives a change of anything else in the file."""
    given = {name: table.pop(name) for name in _CAP if name in table}
    if not given:
        return None
    if len(given) < len(_CAP):
        raise ValueError("most and per_seconds make a cap together.")
    for name, value in given.items():
        if type(value) is not int or not 0 < value <= _CAP[name]:
            raise ValueError(f"{name} is a whole number from 1 to {_CAP[name]:,}.")
    rule = hashlib.sha256(repr(sorted(fits.items())).encode()).hexdigest()[:16]
    return Cap(**given, rule=rule)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 10_000:
        raise ValueError(f"{name} must be text.")
    return value


def _defaults(table: Any) -> dict[str, Any]:
    if not isinstance(table, dict) or not table.keys() <= set(_DEFAULTS):
        raise ValueError(f"defaults may hold {', '.join(_DEFAULTS)}.")
    return table


def _choices(table: dict[str, Any], name: str, is_fit, wanted: str) -> frozenset[str] | None:
    if name not in table:
        return None
    values = table.pop(name)
    if not isinstance(values, list) or not all(isinstance(value, str) and is_fit(value) for value in values):
        raise ValueError(f"{name} is a list of {wanted}.")
    return frozenset(values)


def _is_audience(value: str) -> bool:
    return value in ("everyone", "people") or (value.startswith("role:") and len(value) > 5)


def _audiences_of(draft: Draft) -> set[str]:
    match draft.target.type:
        case TargetType.ALL:
            return {"everyone"}
        case TargetType.ROLE:
            return {f"role:{name}" for name in draft.target.names}
    return {"people"}
