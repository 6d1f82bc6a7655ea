"""Rules from the rules file, and a dry run of each on the newest real events. Changes nothing."""

from flask import Blueprint

from broadcast.base.errors import NotFound
from broadcast.config.settings import SETTINGS
from broadcast.domain.message import Priority
from broadcast.domain.permissions import Permission
from broadcast.ingest import dry_run
from broadcast.ingest.rules import ALLOW_ALL_RULE, RULES, Rules
from broadcast.store import event_sources
from broadcast.web.console.dead_letters import build_preview_card
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import render_page

blueprint = Blueprint("rules", __name__)


@blueprint.get("/rules")
@allow(Permission.OPERATE)
def listing():
    settings = SETTINGS.current
    return render_page(
        "console/rules/list.html",
        rules=_get_rules(),
        priorities=list(Priority),
        path=settings.event_rules,
        is_open=settings.event_rules_default == "allow",
    )


@blueprint.get("/rules/<int:number>")
@allow(Permission.OPERATE)
def detail(number: int):
    rules, by = _get_rules(), current_identity().actor
    if not 0 < number <= len(rules):
        raise NotFound("There is no such rule. Rules are numbered in the order of the file.")
    rule = rules[number - 1]
    tried = [
        {
            "result": result,
            "command": result.prepared.inbound_event.command,
            "card": build_preview_card(result.prepared, by, result.at),
        }
        for result in dry_run.try_rule(rules, number)
    ]
    return render_page(
        "console/rules/detail.html",
        rule=rule,
        number=number,
        priorities=list(Priority),
        tried=tried,
        figures=event_sources.list_source_stats(dry_run.get_rule_sources(rule)),
        most=dry_run.MAX_SAMPLES,
    )


def _get_rules() -> Rules:
    """The rules of the file, without the one that allows everything else."""
    return tuple(rule for rule in RULES.current if rule is not ALLOW_ALL_RULE)
