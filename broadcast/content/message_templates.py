"""Message templates: text with variables, in a small, safe subset of Jinja.

An allow list, not a deny list: variables, a few filters, conditions, and loops over values or `range`. No calls,
attribute access or assignments, so text grows only by loops, and those are counted. Jinja only parses a template, of a
bounded number of tokens. Nothing is compiled, so nothing is constant-folded, and `template_evaluation` counts the cost
of evaluation. Any template ends within milliseconds.
"""

from collections.abc import Iterator, Mapping

from jinja2 import TemplateError, TemplateSyntaxError, nodes

from broadcast.base.errors import Invalid
from broadcast.content.template_evaluation import ENVIRONMENT, FILTERS, MAX_CHARACTERS, TESTS, BudgetExceeded, Evaluator

MAX_PLACEHOLDERS = 200  # variables, conditions and loops
MAX_TOKENS = 1200  # tokens of Jinja: some 20 ms, and each template is parsed twice
MAX_VALUE_CHARACTERS = 2_000  # of one variable
MAX_VARIABLES = 20
MAX_DEPTH = 40  # of nested nodes
_ALLOWED_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.For, nodes.Filter,
    nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Test, nodes.Add, nodes.Sub, nodes.Call,
    nodes.CondExpr,
)  # fmt: skip


def list_variables(*texts: str) -> list[str]:
    """The variables to fill in, in alphabetical order. Raises Invalid if a text is not a valid template."""
    names = {name for text in texts for name in _find_free_names(_parse_template(text), frozenset())}
    if len(names) > MAX_VARIABLES:
        raise Invalid({"content": f"This has {len(names)} variables; at most {MAX_VARIABLES} fit."})
    return sorted(names)


def fill_template(text: str, values: Mapping[str, str]) -> str:
    """The text with its variables filled in. Raises Invalid with a sentence, also if it exceeds the limits."""
    tree = _parse_template(text)
    evaluation = Evaluator({name: value[:MAX_VALUE_CHARACTERS] for name, value in values.items()})
    try:
        return evaluation.render(tree)
    except (BudgetExceeded, TemplateError, TypeError, ValueError, ArithmeticError) as problem:
        raise Invalid({"content": f"This template cannot be filled in: {problem}."}) from None


def _parse_template(text: str) -> nodes.Template:
    try:
        _check_size(text)
        tree = ENVIRONMENT.parse(text)
    except (TemplateSyntaxError, RecursionError, ValueError) as problem:
        line_hint = f" on line {problem.lineno}" if isinstance(problem, TemplateSyntaxError) else ""
        raise Invalid({"content": f"This template has an error{line_hint}: {problem}."}) from None
    if (forbidden := _find_forbidden(tree, 0)) is not None:
        raise Invalid({"content": f"A template cannot use {forbidden}."})
    return tree


def _check_size(text: str) -> None:
    """Raise Invalid if a text has too many tokens. The count stops at the limit."""
    if len(text) > MAX_CHARACTERS:
        raise Invalid({"content": f"This has {len(text):,} characters; at most {MAX_CHARACTERS:,} fit in a template."})
    if (placeholder_count := text.count("{{") + text.count("{%")) > MAX_PLACEHOLDERS:
        raise Invalid(
            {"content": f"This has {placeholder_count:,} placeholders; at most {MAX_PLACEHOLDERS:,} fit in a template."}
        )
    for token_count, _ in enumerate(ENVIRONMENT.lex(text), 1):
        if token_count > 2 * MAX_TOKENS:  # half of the tokens are the whitespace in between
            raise Invalid({"content": f"This has more than {MAX_TOKENS:,} template elements. Simplify it."})


def _find_forbidden(node: nodes.Node, depth: int) -> str | None:
    """What in this subtree is not allowed; None if everything is."""
    node_name = type(node).__name__.lower()
    if not isinstance(node, _ALLOWED_NODES) or depth > MAX_DEPTH:
        return node_name if depth <= MAX_DEPTH else "so many nested parts"
    children = list(node.iter_child_nodes())
    match node:
        case nodes.Call():
            if not (isinstance(node.node, nodes.Name) and node.node.name == "range" and len(node.args) <= 2):
                return "calls"
            if node.kwargs or node.dyn_args or node.dyn_kwargs:
                return "calls"
            children = node.args
        case nodes.Filter() if node.name not in FILTERS:
            return f"the filter {node.name}"
        case nodes.Filter() if node.node is None or node.kwargs or node.dyn_args or node.dyn_kwargs:
            return "filters in that way"
        case nodes.Test() if node.name not in TESTS:
            return f"the test {node.name}"
        case nodes.Name() if node.name.startswith("_") or node.name in ("self", "loop", "range"):
            return f"the name {node.name}"
        case nodes.For() if node.recursive or node.test is not None:
            return "loops with their own condition; put an if inside"
    return next((found for child in children if (found := _find_forbidden(child, depth + 1)) is not None), None)


def _find_free_names(node: nodes.Node, bound: frozenset[str]) -> Iterator[str]:
    """Names that are not bound by an enclosing loop."""
    match node:
        case nodes.Name():
            if node.name not in bound:
                yield node.name
        case nodes.Call():
            for argument in node.args:
                yield from _find_free_names(argument, bound)
        case nodes.For():
            for child in (node.iter, *node.else_):
                yield from _find_free_names(child, bound)
            for child in node.body:
                yield from _find_free_names(child, bound | {node.target.name})
        case _:
            for child in node.iter_child_nodes():
                yield from _find_free_names(child, bound)
