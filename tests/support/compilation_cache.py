"""Most tests make an application of their own, and most of their time went into compiling the same again: the routes of each,
its queries. Here each is compiled once in a process.
"""

from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine
from werkzeug.routing import Rule

_COMPILED_RULE_ATTRIBUTES = (
    "_parts",
    "_trace",
    "_converters",
    "arguments",
    "_build",
    "_build_unknown",
)  # what `Rule.compile` makes


def share_compiled_routes(patch: pytest.MonkeyPatch) -> None:
    """Applications made from here on have the compiled routes of those before."""
    compile_rule, compiled_rules = Rule.compile, {}

    def compile_once(rule: Rule) -> None:
        key = (rule.rule, str(rule.defaults))
        if key in compiled_rules:
            vars(rule).update(compiled_rules[key])
            return
        compile_rule(rule)
        compiled_rules[key] = {name: getattr(rule, name) for name in _COMPILED_RULE_ATTRIBUTES}

    patch.setattr(Rule, "compile", compile_once)


def share_compiled_queries(patch: pytest.MonkeyPatch, source_engine: Engine) -> None:
    """Engines made from here on have the compiled queries of `source_engine`, which has been connected: its dialect has
    asked then what the database can do. Queries are compiled for a dialect, so they have that as well.
    """
    make_engine = SQLAlchemy._make_engine

    def make_engine_with_shared_cache(self: SQLAlchemy, *args: Any) -> Engine:
        engine = make_engine(self, *args)
        if engine.dialect.name == source_engine.dialect.name:
            engine.dialect, engine._compiled_cache = source_engine.dialect, source_engine._compiled_cache
        return engine

    patch.setattr(SQLAlchemy, "_make_engine", make_engine_with_shared_cache)
