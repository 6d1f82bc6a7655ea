"""Rules of sources as the settings file says them, and what each would make of the newest real events. Changes nothing."""

from typing import Any

from flask import Blueprint

from broadcast.base.errors import NotFound
from broadcast.config.settings import SETTINGS
from broadcast.domain.inbound import Publish, Rejected
from broadcast.domain.message import Priority
from broadcast.domain.permissions import Permission
from broadcast.ingest import dry_run
from broadcast.ingest.dry_run import Tried
from broadcast.ingest.rules import ANYTHING, RULES, Rule, Rules
from broadcast.store import event_sources
from broadcast.web.console.dead_letters import rehearsed
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import page

blueprint = Blueprint("rules", __name__)

_SPOKEN = {"targetType": "audience", "targetIds": "who gets it", "requiresAck": "acknowledgement"}
_TEMPLATES = {"title": "Title", "content": "Text", "collapse_key": "Collapse key"}


@blueprint.get("/rules")
@allow(Permission.OPERATE)
def listing():
    """Every rule with who may send under it, and what becomes of what none is for."""
    rules = [_told(rule, number) for number, rule in enumerate(_rules(), 1)]
    settings = SETTINGS.current
    is_open = settings.event_rules_others == "allow"
    return page("console/rules/list.html", rules=rules, path=settings.event_rules, is_open=is_open)


@blueprint.get("/rules/<int:number>")
@allow(Permission.OPERATE)
def one(number: int):
    """The rule, and its dry run."""
    rules = _rules()
    if not 0 < number <= len(rules):
        raise NotFound("There is no such rule. Rules are numbered as they stand in the file.")
    rule = rules[number - 1]
    tried = [_shown(one) for one in dry_run.try_rule(rules, number)]
    figures = event_sources.figures(dry_run.sources_of(rule))
    return page("console/rules/detail.html", rule=_told(rule, number), tried=tried, figures=figures, most=dry_run.MOST)


def _rules() -> Rules:
    """Those of the file: the one for all the rest, where that is let through, is no rule to look at."""
    return tuple(rule for rule in RULES.current if rule is not ANYTHING)


def _told(rule: Rule, number: int) -> dict[str, Any]:
    """A rule in words for a page."""
    return {
        "number": number,
        "fits": sorted(rule.fits.items()),
        "senders": rule.senders,
        "sender": rule.sender,
        "defaults": [(_SPOKEN.get(name, name), _words(value)) for name, value in rule.defaults.items()],
        "texts": [(_TEMPLATES[name], text.typed) for name, text in rule.templates.items()],
        "audiences": rule.audiences and sorted(rule.audiences),
        "priorities": rule.priorities and [one for one in Priority if one in rule.priorities],
        "cap": rule.cap,
        "draft": rule.draft,
    }


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _shown(tried: Tried) -> dict[str, Any]:
    reading = tried.ready.arrival.reading
    return {
        "at": tried.at,
        "source": tried.source,
        "id": reading.source_id,
        "reach": tried.ready.reach,
        "refusal": reading.reason if isinstance(reading, Rejected) else None,
        "collapse_key": reading.collapse_key if isinstance(reading, Publish) else None,
        "is_draft": isinstance(reading, Publish) and reading.draft.keep_as_draft,
        "card": rehearsed(tried.ready, me().actor, tried.at),
    }
