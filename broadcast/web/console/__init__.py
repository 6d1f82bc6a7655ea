"""The console: one nested blueprint per subject."""

from flask import Blueprint

from broadcast.web.console import channels, dead_letters, deliveries, escalation, overview, rules, system, webhooks
from broadcast.web.console.broadcasts import compose, detail, fragments, library, listing

blueprint = Blueprint("console", __name__, url_prefix="/console")
for _page in (
    overview,
    listing,
    compose,
    fragments,
    detail,
    library,
    dead_letters,
    rules,
    system,
    channels,
    deliveries,
    escalation,
    webhooks,
):
    blueprint.register_blueprint(_page.blueprint)
