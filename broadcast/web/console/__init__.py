"""The console: one nested blueprint per subject."""

from flask import Blueprint

from broadcast.web.console import connections, dead_letters, health, overview, rules
from broadcast.web.console.broadcasts import compose, detail, fragments, library, listing, revisions

blueprint = Blueprint("console", __name__, url_prefix="/console")
for _page_module in (
    overview,
    listing,
    compose,
    fragments,
    detail,
    revisions,
    library,
    connections,
    dead_letters,
    rules,
    health,
):
    blueprint.register_blueprint(_page_module.blueprint)
