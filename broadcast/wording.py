"""Message templates: text with variables, in a small and harmless part of Jinja.

What may be written is a list of allowed pieces, not a list of forbidden ones: variables, a few filters, conditions, and loops
over what was filled in or over `range`. Nothing can be called, reached into or assigned, so text grows only by loops, and
those are counted: whatever somebody writes, rendering ends within milliseconds.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from broadcast.errors import Invalid

MOST_CHARACTERS = 20_000  # of the result; a message has at most 16 KiB
MOST_ROUNDS = 500  # of all loops together
MOST_VALUE = 2_000  # characters of one variable
MOST_VARIABLES = 20
MOST_NUMBER = 10**9
MOST_DEPTH = 40  # of parts in one another
_FILTERS = [
    "upper",
    "lower",
    "title",
    "capitalize",
    "trim",
    "default",
    "join",
    "length",
    "first",
    "last",
    "int",
    "round",
]
_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.For, nodes.Filter,
    nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Test, nodes.Add, nodes.Sub, nodes.Call, nodes.CondExpr,
)  # fmt: skip
_TESTS = ("defined", "undefined", "none", "odd", "even")


class _TooLong(Exception):
    pass


class _Environment(ImmutableSandboxedEnvironment):
    """Adds numbers only: text that is added to itself often enough fills any memory."""

    intercepted_binops = frozenset(["+", "-"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if not all(isinstance(side, int | float) and abs(side) <= MOST_NUMBER for side in (left, right)):
            raise ValueError("only numbers can be added")
        return left + right if operator == "+" else left - right


def _split(text: Any) -> list[str]:
    return [part.strip() for part in str(text).split(",") if part.strip()]


def _join(parts: Any, between: str = "") -> str:
    parts = [str(part) for part in parts]
    if sum(map(len, parts)) + len(parts) * len(between) > MOST_CHARACTERS:
        raise _TooLong
    return between.join(parts)


_environment = _Environment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
_environment.filters = {name: _environment.filters[name] for name in _FILTERS}
_environment.filters |= {"split": _split, "join": _join}


def variables(*texts: str) -> list[str]:
    """Names that must be filled in, in alphabetical order. Raises Invalid when a text is no template."""
    names = set().union(*(meta.find_undeclared_variables(_parsed(text)) for text in texts)) - {"range"}
    if len(names) > MOST_VARIABLES:
        raise Invalid({"content": f"This has {len(names)} variables; at most {MOST_VARIABLES} fit."})
    return sorted(names)


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with its variables filled in. Raises Invalid with a sentence, also when it would grow without end."""
    tree = _parsed(text)
    _count_rounds(tree)
    rounds = 0

    def count() -> str:
        nonlocal rounds
        rounds += 1
        if rounds > MOST_ROUNDS:
            raise _TooLong
        return ""

    compiled = _environment.from_string(tree)
    given = {name: value[:MOST_VALUE] for name, value in values.items()}
    written, size = [], 0
    try:
        for piece in compiled.generate(given | {"range": _range, _COUNT: count}):
            written.append(piece)
            size += len(piece)
            if size > MOST_CHARACTERS:
                raise _TooLong
    except _TooLong:
        raise Invalid({"content": "This template becomes too long: its loops go round too often."}) from None
    except (TemplateError, TypeError, ValueError, ArithmeticError) as problem:
        raise Invalid({"content": f"This template cannot be filled in: {problem}."}) from None
    return "".join(written)


_COUNT = "count_a_round"  # cannot be written in a template: see `_refuse`


def _parsed(text: str) -> nodes.Template:
    try:
        tree = _environment.parse(text[:MOST_CHARACTERS])
    except (TemplateSyntaxError, RecursionError, ValueError) as problem:
        where = f" in line {problem.lineno}" if isinstance(problem, TemplateSyntaxError) else ""
        raise Invalid({"content": f"This is no template{where}: {problem}."}) from None
    if (what := _refuse(tree, 0)) is not None:
        raise Invalid({"content": f"A template cannot use {what}."})
    return tree


def _refuse(node: nodes.Node, depth: int) -> str | None:
    """What in this part of the tree is not allowed; None when all of it is."""
    what = type(node).__name__.lower()
    if not isinstance(node, _ALLOWED) or depth > MOST_DEPTH:
        return what if depth <= MOST_DEPTH else "so many parts in one another"
    match node:
        case nodes.Call():
            if not (isinstance(node.node, nodes.Name) and node.node.name == "range" and len(node.args) <= 2):
                return "calls"
        case nodes.Filter() if node.name not in _environment.filters:
            return f"the filter {node.name}"
        case nodes.Filter() if node.node is None or node.dyn_args or node.dyn_kwargs:
            return "filters in that way"
        case nodes.Test() if node.name not in _TESTS:
            return f"the test {node.name}"
        case nodes.Name() if node.name.startswith("_") or node.name in ("self", "loop", _COUNT):
            return f"the name {node.name}"
        case nodes.For() if node.recursive or node.test is not None:
            return "loops with a condition of their own; put an if inside"
    return next((found for child in node.iter_child_nodes() if (found := _refuse(child, depth + 1)) is not None), None)


def _count_rounds(tree: nodes.Template) -> None:
    """Begin the body of every loop with a call that counts, and that ends the rendering when it has counted too far."""
    for loop in tree.find_all(nodes.For):
        call = nodes.Call(nodes.Name(_COUNT, "load"), [], [], None, None)
        loop.body.insert(0, nodes.Output([call]).set_lineno(loop.lineno))
    tree.set_environment(_environment)


def _range(*numbers: int) -> range:
    if not all(isinstance(number, int) and abs(number) <= MOST_NUMBER for number in numbers):
        raise ValueError("range needs whole numbers")
    if len(wanted := range(*numbers)) > MOST_ROUNDS:
        raise _TooLong
    return wanted
