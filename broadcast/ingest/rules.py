"""Rules of sources: who may send as which source, what an event may leave out and ask for, how it reads, how much goes out
(docs/events.md). `rules_file` reads them, strictly and once, at start.

The first rule that fits an event, and whose `from` names its sender, holds for it. Where there are rules, what none fits is
refused; and what a rule keeps for its own senders, no later rule for everybody lets through. Templates are the operator's,
their values a stranger's: the sandbox lets values be shown and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from jinja2 import Template

from broadcast.base.app_parts import AppPart
from broadcast.domain import event_source
from broadcast.domain.event_source import EventOwner
from broadcast.domain.inbound import RateCap
from broadcast.domain.message import Draft, TargetType

AUDIENCE_FIELDS = ("targetType", "targetIds")


class TemplateRenderError(Exception):
    """The data does not have what the template of its rule shows; the message says what."""


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """A template, and how it was `source_text`."""

    source_text: str
    template: Template

    def render(self, **values: Any) -> str:
        """Raises TemplateRenderError."""
        try:
            return self.template.render(values)
        except Exception as problem:  # whatever a template does with a stranger's values, their event alone pays for it
            raise TemplateRenderError(f"The data does not fit the template of its rule: {problem}"[:300]) from None


@dataclass(frozen=True, slots=True)
class Rule:
    """`patterns` are patterns of source, topic and type, of each of which one must fit; `senders` who may send under this rule,
    None for everybody. `audiences` and `priorities` are what may be used; None allows all.

    `templates` are title, content and collapse key, of which the first two come together; `rate_cap` limits what goes out.
    """

    patterns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    senders: tuple[str, ...] | None = None
    sender_name: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    templates: Mapping[str, TextTemplate] = field(default_factory=dict)
    audiences: frozenset[str] | None = None
    priorities: frozenset[str] | None = None
    is_draft_only: bool = False
    rate_cap: RateCap | None = None

    @property
    def has_message_templates(self) -> bool:
        """Whether it makes messages of data that knows nothing of messages."""
        return "title" in self.templates

    def matches_event(self, *, source: str, topic: str | None, type: str) -> bool:
        values = {"topic": topic or "", "type": type}
        return self.matches_source(source) and all(
            any(fnmatchcase(values[name], pattern) for pattern in self.patterns[name])
            for name in values
            if name in self.patterns
        )

    def matches_source(self, source: str) -> bool:
        """Whether this canonical source is one that the rule is for."""
        patterns = self.patterns.get("source")
        return patterns is None or any(event_source.matches_pattern(pattern, source) for pattern in patterns)

    def may_be_used_by(self, owner: EventOwner) -> bool:
        return self.senders is None or any(fnmatchcase(owner.name, pattern) for pattern in self.senders)

    def build_message_fields(self, data: Any) -> Any:
        """The fields of a message, of an event's data: rendered if there are templates, and with what it left out.

        Raises TemplateRenderError.
        """
        if self.has_message_templates:
            data = {name: self.templates[name].render(data=data) for name in ("title", "content")}
        if not isinstance(data, Mapping):
            return data
        event_fields = {name: value for name, value in data.items() if value is not None}
        has_own_audience = "targetType" in event_fields  # then the default's names are of another audience
        applied_defaults = {
            name: value for name, value in self.defaults.items() if not (has_own_audience and name in AUDIENCE_FIELDS)
        }
        return applied_defaults | event_fields

    def find_refusal(self, draft: Draft) -> str | None:
        """Why this source may not send this; None if it may."""
        if self.priorities is not None and draft.priority not in self.priorities:
            return f"Its source may not use the priority {draft.priority}."
        requested = _list_audiences(draft)
        if self.audiences is not None and not requested <= self.audiences:
            return f"Its source may not send to {', '.join(sorted(requested - self.audiences))}."
        return None

    def render_collapse_key(self, data: Any, type: str) -> str | None:
        """The key under which events of this rule share a card, None without one. Raises TemplateRenderError."""
        if "collapse_key" not in self.templates:
            return None
        return self.templates["collapse_key"].render(data=data, type=type).strip() or None


ALLOW_ALL_RULE = Rule()  # last of the rules where what none of them fits is let through
Rules = tuple[Rule, ...]


class NoMatchingRule(Exception):
    """No rule lets this sender send this; the message is the sentence for them."""


def find_rule(rules: Rules, *, source: str, topic: str | None, type: str, owner: EventOwner) -> Rule:
    """The rule that holds for an event. Without any rules, one that changes nothing. Raises NoMatchingRule."""
    is_reserved = False  # for the senders of a rule that fits: then what is for everybody is not for this
    for rule in rules or (ALLOW_ALL_RULE,):
        if not rule.matches_event(source=source, topic=topic, type=type):
            continue
        if not rule.may_be_used_by(owner):
            is_reserved = True
        elif rule.senders is not None or not is_reserved:
            return rule
    if is_reserved:
        raise NoMatchingRule(
            f"{owner.name or 'Its sender'} may not send as {source}. The rule for this source lists who may."
        )
    raise NoMatchingRule(f"No rule matches what {owner.name or 'its sender'} sends as {source}, so it is refused.")


def _list_audiences(draft: Draft) -> set[str]:
    match draft.target.type:
        case TargetType.ALL:
            return {"everyone"}
        case TargetType.ROLE:
            return {f"role:{name}" for name in draft.target.names}
    return {"people"}


RULES = AppPart[Rules]("rules")
