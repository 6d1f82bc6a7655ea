"""Renders Markdown to HTML that is safe on every page.

Two maintained libraries in sequence: markdown-it-py emits no raw HTML, and nh3 (ammonia) then allows only a short list
of tags. No images, no classes, no ids; links only to http, https and mailto.

No text within 16 KiB blocks a worker's event loop. `_check_structure` rejects texts with too much of one structure
before parsing. Every parser step is counted, so that work which the limits do not foresee ends too, and after every few
milliseconds of steps other greenlets run.
"""

import copy
import re
from collections.abc import Iterator, Sequence

import nh3
from markdown_it import MarkdownIt
from markdown_it.parser_inline import ParserInline
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline, linkify
from markdown_it.token import Token

from broadcast.base.cooperative import Yielder
from broadcast.base.errors import Invalid
from broadcast.content import autolinks
from broadcast.content.autolinks import Address
from broadcast.domain.visible_text import is_blank

MAX_STEPS = 40_000  # per text: some 100 ms of parsing; a newsletter with a hundred links takes 10,000
MAX_LEVELS = 20  # of nested quotes and lists; a list counts as two
MAX_LINKS = 500  # addresses that become links automatically
_MAX_SCHEME_CHARACTERS = 32  # before `://`

_ALLOWED_TAGS = {
    "p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a", "h3", "h4", "h5", "h6",
    "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip

# One line without characters that are special in Markdown or could be part of a link. Programs send thousands of such
# lines per second, and both libraries together take 0.3 ms for each. A test compares this pattern with the libraries.
# It does not backtrack (`++`, `*+`), as no character matches two of its parts.
_PLAIN_LINE = re.compile(r"[A-Za-z](?:[A-Za-z0-9,;!?'\"() ]++|[.:](?= |\Z)|(?<=[A-Za-z0-9])-(?=[A-Za-z0-9]))*+(?<! )")
_MAY_BE_ADDRESS = re.compile(r"\w[.@]\w|://")
_LONG_HOST = re.compile(r"(?:[a-z]+:)?(?://)?[^/?#]{320}", re.IGNORECASE)


# Limits of structure, several times what people write in 16 KiB: a newsletter with a hundred links and a table of two
# hundred rows has a third of each
_LIMITS = (
    (re.compile(r"\n"), 2000, "line breaks"),
    (re.compile(r"\["), 1000, "opening square brackets"),
    (re.compile(r"[*_~]"), 3000, "emphasis characters (* _ ~)"),
    (re.compile(r"`+"), 2000, "backticks"),
    (re.compile(r"<"), 2000, "opening angle brackets"),
    (re.compile(r"&"), 2000, "ampersands"),
    (re.compile(r"\\"), 2000, "backslashes"),
    (re.compile(r"\|"), 4000, "vertical bars of tables"),
)
_MAX_CELLS = 4000  # of all tables, including those that Markdown adds when a row is shorter than the head
_MAX_MARKERS = 100  # quote and list markers at the start of one line; a line drawn as `- - -` is as wide as a page
_MARKER_PATTERN = re.compile(r"[ \t]*+(?:[-+*>]|\d{1,9}[.)])(?=[ \t>])")
_TABLE_DELIMITER_ROW = re.compile(r"[ \t>*+\d.)|:-]++")  # the row below a table's head, perhaps in a list or a quote


def render(markdown: str) -> str:
    """Render a message of at most 16 KiB. Lets other greenlets run, so never call it inside a write transaction.

    Raises Invalid for the field `content` if no text is visible, or if it has more of a structure than is rendered.
    """
    if _PLAIN_LINE.fullmatch(markdown):
        return f"<p>{markdown}</p>\n"
    return _render_markdown(markdown)


def _render_markdown(markdown: str) -> str:
    _check_structure(markdown)
    budget = _WorkBudget()
    parser = copy.copy(_base_parser)
    parser.linkify = _AddressMatcher(budget)
    parser.normalizeLink = budget.normalize_link
    tokens = parser.parse(markdown, {"work": budget})
    if not any(map(_has_visible_text, tokens)):
        raise Invalid({"content": "The message has no visible text. Images and links without text are not shown."})
    for token in tokens:
        if token.tag in ("h1", "h2"):  # the page and the card have their own h1 and h2
            token.tag = "h3"
    html = "".join(_render_tokens(tokens, budget))
    return nh3.clean(
        html,
        tags=_ALLOWED_TAGS,
        attributes={"a": {"href", "title"}, "ol": {"start"}},
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
    )


def _check_structure(markdown: str) -> None:
    """Raise Invalid if a message has more of a structure than is rendered. Linear time."""
    for pattern, max_count, label in _LIMITS:
        if (count := sum(1 for _ in pattern.finditer(markdown))) > max_count:
            raise _make_error(f"It has {count:,} {label}; at most {max_count:,} fit.")
    lines = markdown.split("\n")
    for line in lines:
        if _count_markers(line) > _MAX_MARKERS:
            raise _make_error(f"A line begins with more than {_MAX_MARKERS} list and quote markers.")
    if (cells := _count_cells(lines)) > _MAX_CELLS:
        raise _make_error(f"Its tables have {cells:,} cells; at most {_MAX_CELLS:,} fit.")


def _count_markers(line: str) -> int:
    count = position = 0
    while (marker := _MARKER_PATTERN.match(line, position)) and count <= _MAX_MARKERS:
        count, position = count + 1, marker.end()
    return count


def _count_cells(lines: list[str]) -> int:
    """An upper bound of the cells of all tables: each row counts as many as the head, down to the next blank line."""
    cells = columns = 0
    for line in lines:
        if not line.strip(" \t>"):
            columns = 0
        elif "-" in line and ("|" in line or ":" in line) and _TABLE_DELIMITER_ROW.fullmatch(line):
            columns = max(columns, line.count("|") + 1)
            cells += 2 * columns
        else:
            cells += columns
    return cells


def _make_error(detail: str) -> Invalid:
    return Invalid({"content": f"The message is too complex to show. {detail} Simplify it, or send it in parts."})


class _WorkBudget:
    """The work that one text has cost so far."""

    def __init__(self) -> None:
        self._steps, self._links, self._yielder = 0, 0, Yielder()

    def count_step(self) -> None:
        """Count a parser step, and let other greenlets run after many. Raises Invalid."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _make_error("Its links, brackets or other formatting are nested too deeply.")
        self._yielder.maybe_yield()

    def count_link(self) -> None:
        """Count an automatic link. Raises Invalid."""
        self.count_step()
        self._links += 1
        if self._links > MAX_LINKS:
            detail = f"It has more than {MAX_LINKS:,} web and email addresses, and each would become a link."
            raise _make_error(detail)

    def normalize_link(self, url: str) -> str:
        """Like the library's function, which runs some hundred lines per address."""
        self.count_step()
        return _base_parser.normalizeLink(url)


class _AddressMatcher:
    """The library's linkify interface. Counts the addresses, and the words that may be addresses."""

    def __init__(self, budget: _WorkBudget):
        self._budget = budget

    def pretest(self, text: str) -> bool:
        return _MAY_BE_ADDRESS.search(text) is not None

    def test(self, text: str) -> bool:
        self._budget.count_step()
        return self.pretest(text)

    def match(self, text: str) -> list[Address]:
        return [self._count_link(address) for address in autolinks.find_addresses(text)]

    def match_at_start(self, text: str) -> Address | None:
        address = autolinks.match_address_at_start(text[: autolinks.MAX_ADDRESS_CHARACTERS + 1])
        return address and self._count_link(address)

    def _count_link(self, address: Address) -> Address:
        self._budget.count_link()
        return address


class _StepCountingInlineParser(ParserInline):
    """Counts a step for each character of the look-ahead for the end of a link, even where its result is cached."""

    def skipToken(self, state: StateInline) -> None:  # noqa: N802 - a name of the library
        state.env["work"].count_step()
        super().skipToken(state)


def _count_inline_step(state: StateInline, silent: bool) -> bool:
    state.env["work"].count_step()
    return False


def _linkify_bounded(state: StateInline, silent: bool) -> bool:
    """The library's rule for `://`. It searches all text since the last special character; here only its end."""
    if not state.src.startswith("://", state.pos):
        return False
    pending = state.pending
    if len(pending) <= _MAX_SCHEME_CHARACTERS:
        return linkify(state, silent)
    if not silent:
        state.pending = pending[:-_MAX_SCHEME_CHARACTERS]
        state.pushPending()  # the library joins adjacent texts
        state.pending = pending[-_MAX_SCHEME_CHARACTERS:]
        return linkify(state, silent)
    state.pending = pending[-_MAX_SCHEME_CHARACTERS:]
    is_link = linkify(state, silent)
    state.pending = pending
    return is_link


def _is_url_too_long(url: str) -> bool:
    """Such an address stays text. Encoding a host in Punycode takes time quadratic in its length."""
    return len(url) > autolinks.MAX_ADDRESS_CHARACTERS or _LONG_HOST.match(url) is not None


def _count_block_step(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A rule that never matches and only counts. It rejects nesting that the library would silently drop."""
    state.env["work"].count_step()
    if state.level > MAX_LEVELS:
        raise _make_error(f"At most {MAX_LEVELS // 2} lists, or {MAX_LEVELS} quotes, can be nested.")
    return False


def _has_visible_text(token: Token) -> bool:
    if token.type == "inline":
        return any(map(_has_visible_text, token.children))
    return token.type in ("text", "text_special", "code_inline", "code_block", "fence") and not is_blank(token.content)


def _render_tokens(tokens: Sequence[Token], budget: _WorkBudget) -> Iterator[str]:
    """Render tokens to HTML piece by piece; the library's renderer does it in one go."""
    for index, token in enumerate(tokens):
        budget.count_step()
        if token.type == "inline":
            yield from _render_tokens(token.children, budget)
        elif (rule := _base_parser.renderer.rules.get(token.type)) is not None:
            yield rule(tokens, index, _base_parser.options, {})
        else:
            yield _base_parser.renderer.renderToken(tokens, index, _base_parser.options, {})


def _make_parser() -> MarkdownIt:
    # Deeper than MAX_LEVELS: `_count_block_step` rejects the text before the library drops anything
    parser = MarkdownIt("js-default", {"html": False, "linkify": True, "breaks": True, "maxNesting": MAX_LEVELS + 10})
    # nh3 checks schemes but allows URLs without one: `//elsewhere`, or a path of this site
    parser.validateLink = lambda url: url.lower().startswith(("http://", "https://", "mailto:"))
    normalize_link = parser.normalizeLink
    parser.normalizeLink = lambda url: "" if _is_url_too_long(url) else normalize_link(url)
    inline, parser.inline = parser.inline, _StepCountingInlineParser()
    parser.inline.ruler, parser.inline.ruler2 = inline.ruler, inline.ruler2
    parser.inline.ruler.before("text", "step", _count_inline_step)
    parser.inline.ruler.at("linkify", _linkify_bounded)
    interruptible_rules = ["paragraph", "reference", "blockquote", "list"]  # these look for their last line with it
    parser.block.ruler.before("table", "step", _count_block_step, {"alt": interruptible_rules})
    return parser


_base_parser = _make_parser()
