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
from broadcast.domain.event_source import Owner
from broadcast.domain.inbound import Cap
from broadcast.domain.message import Draft, TargetType

AUDIENCE = ("targetType", "targetIds")


class TemplateFailed(Exception):
    """The data does not have what the template of its rule shows; the message says what."""


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


@dataclass(frozen=True, slots=True)
class Rule:
    """`fits` are patterns of source, topic and type, of each of which one must fit; `senders` who may send under this rule,
    None for everybody. `audiences` and `priorities` are what may be used; None allows all.

    `templates` are title, content and collapse key, of which the first two come together; `cap` limits what goes out.
    """

    fits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    senders: tuple[str, ...] | None = None
    sender: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    templates: Mapping[str, Text] = field(default_factory=dict)
    audiences: frozenset[str] | None = None
    priorities: frozenset[str] | None = None
    draft: bool = False
    cap: Cap | None = None

    @property
    def is_translator(self) -> bool:
        """Whether it makes messages of data that knows nothing of messages."""
        return "title" in self.templates

    def fits_event(self, *, source: str, topic: str | None, type: str) -> bool:
        given = {"topic": topic or "", "type": type}
        return self.fits_source(source) and all(
            any(fnmatchcase(given[name], pattern) for pattern in self.fits[name]) for name in given if name in self.fits
        )

    def fits_source(self, source: str) -> bool:
        """Whether this canonical source is one that the rule is for."""
        patterns = self.fits.get("source")
        return patterns is None or any(event_source.fits(pattern, source) for pattern in patterns)

    def may_be_used_by(self, owner: Owner) -> bool:
        return self.senders is None or any(fnmatchcase(owner.name, pattern) for pattern in self.senders)

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
        left = {name: value for name, value in self.defaults.items() if not (is_whole and name in AUDIENCE)}
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


ANYTHING = Rule()  # last of the rules where what none of them fits is let through
Rules = tuple[Rule, ...]


class NotCovered(Exception):
    """No rule lets this sender send this; the message is the sentence for them."""


def rule_for(rules: Rules, *, source: str, topic: str | None, type: str, owner: Owner) -> Rule:
    """The rule that holds for an event. Without any rules, one that changes nothing. Raises NotCovered."""
    is_kept = False  # for the senders of a rule that fits: then what is for everybody is not for this
    for rule in rules or (ANYTHING,):
        if not rule.fits_event(source=source, topic=topic, type=type):
            continue
        if not rule.may_be_used_by(owner):
            is_kept = True
        elif rule.senders is not None or not is_kept:
            return rule
    if is_kept:
        raise NotCovered(
            f"{owner.name or 'Its sender'} may not send as {source}. The rule of this source names who may."
        )
    raise NotCovered(f"No rule is for what {owner.name or 'its sender'} sends as {source}, so it is refused.")


def _audiences_of(draft: Draft) -> set[str]:
    match draft.target.type:
        case TargetType.ALL:
            return {"everyone"}
        case TargetType.ROLE:
            return {f"role:{name}" for name in draft.target.names}
    return {"people"}


RULES = AppPart[Rules]("rules")
