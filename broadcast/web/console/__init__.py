"""The console, by subject; each is a blueprint inside this one."""

from flask import Blueprint

from broadcast.web.console import (
    compose,
    connections,
    dead_letters,
    health,
    library,
    listing,
    one,
    overview,
    parts,
    revisions,
    rules,
)

blueprint = Blueprint("console", __name__, url_prefix="/console")
for _subject in (overview, listing, compose, parts, one, revisions, library, connections, dead_letters, rules, health):
    blueprint.register_blueprint(_subject.blueprint)
