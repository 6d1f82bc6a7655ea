"""Rules of sources: who may send as which source, what an event may omit and request, its templates and rate cap
(docs/events.md). `rules_file` reads them, strictly and once, at start.

The first rule that matches an event, and whose `from` names its sender, applies. Where rules exist, an event that
matches none is rejected. A rule that reserves a source for its senders also hides it from later rules for everybody.
Templates are the operator's, their values are untrusted: the sandbox only renders values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from jinja2 import Template

from broadcast.base.app_parts import AppPart
from broadcast.domain.event_source import EventOwner, matches_pattern
from broadcast.domain.inbound import RateCap
from broadcast.domain.message import Draft, TargetType

AUDIENCE_FIELDS = ("targetType", "targetIds")


class TemplateRenderError(Exception):
    """The data lacks what its rule's template shows. The message says what."""


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """A compiled template and its `source_text`."""

    source_text: str
    template: Template

    def render(self, **values: Any) -> str:
        """Raises TemplateRenderError."""
        try:
            return self.template.render(values)
        except Exception as problem:  # any template error costs only this event
            raise TemplateRenderError(f"The data does not fit the template of its rule: {problem}"[:300]) from None


@dataclass(frozen=True, slots=True)
class Rule:
    """`patterns` are of source, topic and type: one of each must match. `senders` may use this rule, None for
    everybody. `audiences` and `priorities` are the allowed ones; None allows all.

    `templates` are title, content and collapse key; the first two come together. `rate_cap` limits publishing.
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
        """Whether templates build the message from arbitrary data."""
        return "title" in self.templates

    def matches_event(self, *, source: str, topic: str | None, type: str) -> bool:
        return self.matches_source(source) and all(
            any(fnmatchcase(value, pattern) for pattern in self.patterns.get(name, ("*",)))
            for name, value in (("topic", topic or ""), ("type", type))
        )

    def matches_source(self, source: str) -> bool:
        """Whether the rule matches this canonical source."""
        patterns = self.patterns.get("source")
        return patterns is None or any(matches_pattern(pattern, source) for pattern in patterns)

    def may_be_used_by(self, owner: EventOwner) -> bool:
        return self.senders is None or any(fnmatchcase(owner.name, pattern) for pattern in self.senders)

    def build_message_fields(self, data: Any) -> Any:
        """An event's message fields: rendered from templates, if any, and with defaults. Raises TemplateRenderError."""
        if self.has_message_templates:
            data = {name: self.templates[name].render(data=data) for name in ("title", "content")}
        if not isinstance(data, Mapping):
            return data
        event_fields = {name: value for name, value in data.items() if value is not None}
        # the default's names belong to the default's audience
        unused = AUDIENCE_FIELDS if "targetType" in event_fields else ()
        return {name: value for name, value in self.defaults.items() if name not in unused} | event_fields

    def find_refusal(self, draft: Draft) -> str | None:
        """Why this source may not send this draft; None if it may."""
        if self.priorities is not None and draft.priority not in self.priorities:
            return f"Its source may not use the priority {draft.priority}."
        requested = _list_audiences(draft)
        if self.audiences is not None and not requested <= self.audiences:
            return f"Its source may not send to {', '.join(sorted(requested - self.audiences))}."
        return None

    def render_collapse_key(self, data: Any, type: str) -> str | None:
        """The collapse key of an event under this rule, None without one. Raises TemplateRenderError."""
        if "collapse_key" not in self.templates:
            return None
        return self.templates["collapse_key"].render(data=data, type=type).strip() or None


ALLOW_ALL_RULE = Rule()  # the last rule, where unmatched events are allowed
Rules = tuple[Rule, ...]


class NoMatchingRule(Exception):
    """No rule allows this sender to send this. The message is a sentence for the sender."""


def find_rule(rules: Rules, *, source: str, topic: str | None, type: str, owner: EventOwner) -> Rule:
    """The rule that applies to an event; without rules, one that changes nothing. Raises NoMatchingRule."""
    is_reserved = False  # a matching rule names senders: then rules for everybody do not apply
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
