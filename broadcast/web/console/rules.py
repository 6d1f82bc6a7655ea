"""Rules from the rules file, and a dry run of each on the newest real events. Changes nothing."""

from typing import Any

from flask import Blueprint

from broadcast.base.errors import NotFound
from broadcast.config.settings import SETTINGS
from broadcast.domain.inbound import PublishCommand, Rejection
from broadcast.domain.message import Priority
from broadcast.domain.permissions import Permission
from broadcast.ingest import dry_run
from broadcast.ingest.dry_run import DryRunResult
from broadcast.ingest.rules import ALLOW_ALL_RULE, RULES, Rule, Rules
from broadcast.store import event_sources
from broadcast.web.console.dead_letters import build_preview_card
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import render_page

blueprint = Blueprint("rules", __name__)

_FIELD_LABELS = {"targetType": "audience", "targetIds": "recipients", "requiresAck": "acknowledgement"}
_TEMPLATE_LABELS = {"title": "Title", "content": "Text", "collapse_key": "Collapse key"}


@blueprint.get("/rules")
@allow(Permission.OPERATE)
def listing():
    """Every rule with its senders, and what happens to events that match none."""
    rules = [_rule_to_context(rule, number) for number, rule in enumerate(_get_rules(), 1)]
    settings = SETTINGS.current
    is_open = settings.event_rules_default == "allow"
    return render_page("console/rules/list.html", rules=rules, path=settings.event_rules, is_open=is_open)


@blueprint.get("/rules/<int:number>")
@allow(Permission.OPERATE)
def detail(number: int):
    rules = _get_rules()
    if not 0 < number <= len(rules):
        raise NotFound("There is no such rule. Rules are numbered in the order of the file.")
    rule = rules[number - 1]
    tried_events = [_dry_run_to_context(one) for one in dry_run.try_rule(rules, number)]
    source_stats = event_sources.list_source_stats(dry_run.get_rule_sources(rule))
    return render_page(
        "console/rules/detail.html",
        rule=_rule_to_context(rule, number),
        tried=tried_events,
        figures=source_stats,
        most=dry_run.MAX_SAMPLES,
    )


def _get_rules() -> Rules:
    """The rules of the file, without the one that allows everything else."""
    return tuple(rule for rule in RULES.current if rule is not ALLOW_ALL_RULE)


def _rule_to_context(rule: Rule, number: int) -> dict[str, Any]:
    return {
        "number": number,
        "fits": sorted(rule.patterns.items()),
        "senders": rule.senders,
        "sender": rule.sender_name,
        "defaults": [(_FIELD_LABELS.get(name, name), _to_text(value)) for name, value in rule.defaults.items()],
        "texts": [(_TEMPLATE_LABELS[name], text.source_text) for name, text in rule.templates.items()],
        "audiences": rule.audiences and sorted(rule.audiences),
        "priorities": rule.priorities and [one for one in Priority if one in rule.priorities],
        "rate_cap": rule.rate_cap,
        "draft": rule.is_draft_only,
    }


def _to_text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _dry_run_to_context(dry_run_result: DryRunResult) -> dict[str, Any]:
    command = dry_run_result.prepared.inbound_event.command
    return {
        "at": dry_run_result.at,
        "source": dry_run_result.source,
        "id": command.source_id,
        "reach": dry_run_result.prepared.recipient_count,
        "refusal": command.reason if isinstance(command, Rejection) else None,
        "collapse_key": command.collapse_key if isinstance(command, PublishCommand) else None,
        "is_draft": isinstance(command, PublishCommand) and command.draft.keep_as_draft,
        "card": build_preview_card(dry_run_result.prepared, current_identity().actor, dry_run_result.at),
    }
