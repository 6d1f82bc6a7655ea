"""Message templates: text with variables, in a small and harmless part of Jinja.

What may be written is a list of allowed pieces, not a list of forbidden ones: variables, a few filters, conditions, and loops
over what was filled in or over `range`. Nothing can be called, reached into or assigned, so text grows only by loops, and
those are counted. Jinja reads a template, of a bounded number of pieces; nothing is compiled, so nothing is worked out before
it is asked for, and `template_evaluation` counts what that costs. Whatever somebody writes, it ends within milliseconds.
"""

from collections.abc import Iterator, Mapping

from jinja2 import TemplateError, TemplateSyntaxError, nodes

from broadcast.base.errors import Invalid
from broadcast.content.template_evaluation import ENVIRONMENT, FILTERS, MOST_CHARACTERS, TESTS, Evaluation, Spent

MOST_PLACES = 200  # of variables, conditions and loops
MOST_PIECES = 1200  # words, signs and texts that Jinja reads: some 20 ms, and it is read twice
MOST_VALUE = 2_000  # characters of one variable
MOST_VARIABLES = 20
MOST_DEPTH = 40  # of parts in one another
_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.For, nodes.Filter,
    nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Test, nodes.Add, nodes.Sub, nodes.Call,
    nodes.CondExpr,
)  # fmt: skip


def variables(*texts: str) -> list[str]:
    """Names that must be filled in, in alphabetical order. Raises Invalid when a text is no template."""
    names = {name for text in texts for name in _free_names(_parsed(text), frozenset())}
    if len(names) > MOST_VARIABLES:
        raise Invalid({"content": f"This has {len(names)} variables; at most {MOST_VARIABLES} fit."})
    return sorted(names)


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with its variables filled in. Raises Invalid with a sentence, also when it would grow without end."""
    tree = _parsed(text)
    evaluation = Evaluation({name: value[:MOST_VALUE] for name, value in values.items()})
    try:
        return evaluation.text_of(tree)
    except Spent as spent:
        raise Invalid({"content": f"This template becomes too long: {spent}."}) from None
    except (TemplateError, TypeError, ValueError, ArithmeticError) as problem:
        raise Invalid({"content": f"This template cannot be filled in: {problem}."}) from None


def _parsed(text: str) -> nodes.Template:
    try:
        _check_size(text)
        tree = ENVIRONMENT.parse(text)
    except (TemplateSyntaxError, RecursionError, ValueError) as problem:
        where = f" in line {problem.lineno}" if isinstance(problem, TemplateSyntaxError) else ""
        raise Invalid({"content": f"This is no template{where}: {problem}."}) from None
    if (what := _refuse(tree, 0)) is not None:
        raise Invalid({"content": f"A template cannot use {what}."})
    return tree


def _check_size(text: str) -> None:
    """Raise Invalid for what has more pieces than are read; the pieces are counted one by one, and no further than that."""
    if len(text) > MOST_CHARACTERS:
        raise Invalid({"content": f"This has {len(text):,} characters; at most {MOST_CHARACTERS:,} fit in a template."})
    if (places := text.count("{{") + text.count("{%")) > MOST_PLACES:
        raise Invalid({"content": f"This has {places:,} places to fill in; at most {MOST_PLACES:,} fit in a template."})
    for pieces, _ in enumerate(ENVIRONMENT.lex(text), 1):
        if pieces > 2 * MOST_PIECES:  # half of what is lexed is the space between
            raise Invalid(
                {"content": f"This has more than {MOST_PIECES:,} words and signs of a template; make it simpler."}
            )


def _refuse(node: nodes.Node, depth: int) -> str | None:
    """What in this part of the tree is not allowed; None when all of it is."""
    what = type(node).__name__.lower()
    if not isinstance(node, _ALLOWED) or depth > MOST_DEPTH:
        return what if depth <= MOST_DEPTH else "so many parts in one another"
    inside = list(node.iter_child_nodes())
    match node:
        case nodes.Call():
            if not (isinstance(node.node, nodes.Name) and node.node.name == "range" and len(node.args) <= 2):
                return "calls"
            if node.kwargs or node.dyn_args or node.dyn_kwargs:
                return "calls"
            inside = node.args
        case nodes.Filter() if node.name not in FILTERS:
            return f"the filter {node.name}"
        case nodes.Filter() if node.node is None or node.kwargs or node.dyn_args or node.dyn_kwargs:
            return "filters in that way"
        case nodes.Test() if node.name not in TESTS:
            return f"the test {node.name}"
        case nodes.Name() if node.name.startswith("_") or node.name in ("self", "loop", "range"):
            return f"the name {node.name}"
        case nodes.For() if node.recursive or node.test is not None:
            return "loops with a condition of their own; put an if inside"
    return next((found for child in inside if (found := _refuse(child, depth + 1)) is not None), None)


def _free_names(node: nodes.Node, bound: frozenset[str]) -> Iterator[str]:
    """Names that no loop around them gives a value."""
    match node:
        case nodes.Name():
            if node.name not in bound:
                yield node.name
        case nodes.Call():
            for argument in node.args:
                yield from _free_names(argument, bound)
        case nodes.For():
            yield from _free_names(node.iter, bound)
            for child in node.else_:
                yield from _free_names(child, bound)
            for child in node.body:
                yield from _free_names(child, bound | {node.target.name})
        case _:
            for child in node.iter_child_nodes():
                yield from _free_names(child, bound)
