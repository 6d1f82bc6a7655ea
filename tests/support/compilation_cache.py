"""Compiles routes, queries and templates once per process: most tests make their own application, and compiling took
most of their time.
"""

from types import CodeType
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from jinja2.bccache import Bucket, BytecodeCache
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


class TemplateCache(BytecodeCache):
    """Templates that were compiled for one application, for those made later."""

    def __init__(self) -> None:
        self._code: dict[str, CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get(bucket.key)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[bucket.key] = bucket.code


def share_compiled_routes(patch: pytest.MonkeyPatch) -> None:
    """Let applications made from now on reuse the compiled routes of earlier ones."""
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
    """Let engines made from now on reuse the compiled queries of `source_engine`. It must have been connected, so that
    its dialect knows what the database supports; queries are compiled for a dialect, so engines share that too.
    """
    make_engine = SQLAlchemy._make_engine

    def make_engine_with_shared_cache(self: SQLAlchemy, *args: Any) -> Engine:
        engine = make_engine(self, *args)
        if engine.dialect.name == source_engine.dialect.name:
            engine.dialect, engine._compiled_cache = source_engine.dialect, source_engine._compiled_cache
        return engine

    patch.setattr(SQLAlchemy, "_make_engine", make_engine_with_shared_cache)
