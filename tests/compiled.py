"""Most tests make an application of their own, and most of their time went into compiling the same again: the routes of each,
its queries. Here each is compiled once in a process.
"""

from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine
from werkzeug.routing import Rule

_COMPILED = ("_parts", "_trace", "_converters", "arguments", "_build", "_build_unknown")  # what `Rule.compile` makes


def share_routes(patch: pytest.MonkeyPatch) -> None:
    """Applications made from here on have the compiled routes of those before."""
    compile_rule, known = Rule.compile, {}

    def compile_once(rule: Rule) -> None:
        key = (rule.rule, str(rule.defaults))
        if key in known:
            vars(rule).update(known[key])
            return
        compile_rule(rule)
        known[key] = {name: getattr(rule, name) for name in _COMPILED}

    patch.setattr(Rule, "compile", compile_once)


def share_queries(patch: pytest.MonkeyPatch, first: Engine) -> None:
    """Engines made from here on have the compiled queries of `first`, which has been connected: its dialect has asked then
    what the database can do. Queries are compiled for a dialect, so they have that as well.
    """
    make_engine = SQLAlchemy._make_engine

    def make_alike(self: SQLAlchemy, *of: Any) -> Engine:
        engine = make_engine(self, *of)
        if engine.dialect.name == first.dialect.name:
            engine.dialect, engine._compiled_cache = first.dialect, first._compiled_cache
        return engine

    patch.setattr(SQLAlchemy, "_make_engine", make_alike)
