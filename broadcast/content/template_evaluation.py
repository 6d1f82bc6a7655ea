"""Evaluates message templates by walking the tree, counting every step, loop iteration and output character.

Values and filters behave as in Jinja. Filters and tests that could turn little input into much work (`round` to many
digits, `join`, `odd` of a text with a `%`) are reimplemented with bounds.
"""

import operator
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from jinja2 import StrictUndefined, Undefined, filters, nodes, tests
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_CHARACTERS = 20_000  # of the result; a message has at most 16 KiB
MAX_ITERATIONS = 500  # of all loops together
MAX_STEPS = 20_000  # some 20 ms
MAX_NUMBER = 10**9
_MAX_ROUND_DIGITS = 15  # after the point; a float has no more
_MAX_TRIM_CHARACTERS = 100  # in the argument of `trim`
_CHARACTERS_PER_STEP = 16

# Only parses templates; `message_templates` checks what they may contain
ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True, optimized=False, cache_size=0
)


class BudgetExceeded(Exception):
    """A template exceeds a limit; the message says which."""

    def __init__(self, reason: str = "its loops run too many times"):
        super().__init__(reason)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _round(value: Any, precision: Any = 0, method: str = "common") -> Any:
    if not _is_number(value) or abs(value) > MAX_NUMBER**2:
        raise ValueError("only numbers can be rounded")
    if not isinstance(precision, int) or abs(precision) > _MAX_ROUND_DIGITS:
        raise ValueError(f"numbers are rounded to at most {_MAX_ROUND_DIGITS} digits")
    return filters.do_round(value, precision, method)


def _split(text: Any) -> list[str]:
    return [part.strip() for part in str(text).split(",") if part.strip()]


def _join(parts: Iterable[Any], separator: str = "") -> str:
    parts = [str(part) for part in parts]
    if sum(map(len, parts)) + len(parts) * len(str(separator)) > MAX_CHARACTERS:
        raise BudgetExceeded
    return str(separator).join(parts)


def _trim(value: Any, chars: str | None = None) -> str:
    if chars is not None and len(chars) > _MAX_TRIM_CHARACTERS:
        raise ValueError(f"trim removes at most {_MAX_TRIM_CHARACTERS} characters")
    return filters.do_trim(value, chars)


FILTERS: dict[str, Callable[..., Any]] = {
    "upper": filters.do_upper, "lower": filters.do_lower, "title": filters.do_title, "capitalize": filters.do_capitalize,
    "trim": _trim, "default": filters.do_default, "join": _join, "length": len, "first": partial(filters.do_first, ENVIRONMENT),
    "last": partial(filters.do_last, ENVIRONMENT),    "int": filters.do_int, "round": _round, "split": _split,
}  # fmt: skip


def _is_odd(value: Any) -> bool:
    if not _is_number(value):  # `%` on a text would format it, to any width
        raise ValueError("only numbers are odd or even")
    return tests.test_odd(value)


def _is_even(value: Any) -> bool:
    return not _is_odd(value) and tests.test_even(value)


TESTS: dict[str, Callable[[Any], bool]] = {
    "defined": tests.test_defined, "undefined": tests.test_undefined, "none": tests.test_none,
    "odd": _is_odd, "even": _is_even,
}  # fmt: skip

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "lteq": operator.le, "gt": operator.gt, "gteq": operator.ge,
    "in": lambda value, whole: value in whole, "notin": lambda value, whole: value not in whole,
}  # fmt: skip


def _range(*numbers: Any) -> range:
    if not all(isinstance(number, int) and abs(number) <= MAX_NUMBER for number in numbers):
        raise ValueError("range needs whole numbers")
    if len(result := range(*numbers)) > MAX_ITERATIONS:
        raise BudgetExceeded
    return result


class Evaluator:
    """Evaluates one template with `values`. Raises BudgetExceeded, or an error of Jinja or Python."""

    def __init__(self, values: Mapping[str, Any]):
        self._values = dict(values)
        self._steps = self._iterations = self._written_characters = 0
        self._output: list[str] = []

    def render(self, tree: nodes.Template) -> str:
        self._write_nodes(tree.body, self._values)
        return "".join(self._output)

    def _count_step(self, size: int = 0) -> None:
        self._steps += 1 + size // _CHARACTERS_PER_STEP
        if self._steps > MAX_STEPS:
            raise BudgetExceeded("it takes too many steps")

    def _write_nodes(self, body: Iterable[nodes.Node], scope: Mapping[str, Any]) -> None:
        for node in body:
            self._count_step()
            match node:
                case nodes.Output():
                    for part in node.nodes:
                        is_text = isinstance(part, nodes.TemplateData)
                        self._write(part.data if is_text else str(self._evaluate(part, scope)))
                case nodes.If():
                    self._write_if(node, scope)
                case nodes.For():
                    self._write_loop(node, scope)

    def _write(self, text: str) -> None:
        self._count_step()
        self._written_characters += len(text)
        if self._written_characters > MAX_CHARACTERS:
            raise BudgetExceeded(f"a message has at most {MAX_CHARACTERS:,} characters")
        self._output.append(text)

    def _write_if(self, node: nodes.If, scope: Mapping[str, Any]) -> None:
        for branch in (node, *node.elif_):
            if self._evaluate(branch.test, scope):
                return self._write_nodes(branch.body, scope)
        return self._write_nodes(node.else_, scope)

    def _write_loop(self, node: nodes.For, scope: Mapping[str, Any]) -> None:
        loop_scope, is_empty = dict(scope), True
        for value in self._evaluate(node.iter, scope):
            is_empty = False
            self._iterations += 1
            if self._iterations > MAX_ITERATIONS:
                raise BudgetExceeded
            loop_scope[node.target.name] = value
            self._write_nodes(node.body, loop_scope)
        if is_empty:
            self._write_nodes(node.else_, scope)

    def _evaluate(self, node: nodes.Node, scope: Mapping[str, Any]) -> Any:
        self._count_step()
        match node:
            case nodes.Const():
                return node.value
            case nodes.TemplateData():
                return node.data
            case nodes.Name():
                return scope[node.name] if node.name in scope else StrictUndefined(name=node.name)
            case nodes.Filter():
                return self._apply_filter(node, scope)
            case nodes.Test():
                return TESTS[node.name](self._evaluate(node.node, scope))
            case nodes.Compare():
                return self._compare(node, scope)
            case nodes.And():
                return self._evaluate(node.left, scope) and self._evaluate(node.right, scope)
            case nodes.Or():
                return self._evaluate(node.left, scope) or self._evaluate(node.right, scope)
            case nodes.Not():
                return not self._evaluate(node.node, scope)
            case nodes.CondExpr():
                if self._evaluate(node.test, scope):
                    return self._evaluate(node.expr1, scope)
                return Undefined() if node.expr2 is None else self._evaluate(node.expr2, scope)
            case nodes.Add() | nodes.Sub():
                return self._add_or_subtract(node, scope)
            case nodes.Call():
                return _range(*(self._evaluate(argument, scope) for argument in node.args))
        raise TypeError(f"{type(node).__name__.lower()} has no value")

    def _apply_filter(self, node: nodes.Filter, scope: Mapping[str, Any]) -> Any:
        value = self._evaluate(node.node, scope)
        self._count_step(_measure_size(value))
        arguments = [self._evaluate(argument, scope) for argument in node.args]
        result = FILTERS[node.name](value, *arguments)
        self._count_step(_measure_size(result))
        return result

    def _compare(self, node: nodes.Compare, scope: Mapping[str, Any]) -> bool:
        left, result = self._evaluate(node.expr, scope), True
        for operand in node.ops:
            right = self._evaluate(operand.expr, scope)
            self._count_step(_measure_size(left) + _measure_size(right))
            if not (result := _COMPARISONS[operand.op](left, right)):
                break
            left = right
        return result

    def _add_or_subtract(self, node: nodes.BinExpr, scope: Mapping[str, Any]) -> Any:
        left, right = self._evaluate(node.left, scope), self._evaluate(node.right, scope)
        if not all(_is_number(side) and abs(side) <= MAX_NUMBER for side in (left, right)):
            raise ValueError("only numbers can be added")
        return left + right if isinstance(node, nodes.Add) else left - right


def _measure_size(value: Any) -> int:
    """Characters or items of a value; for an integer, its bits."""
    if isinstance(value, str | list | range):
        return len(value)
    return value.bit_length() if isinstance(value, int) else 1
