"""Markdown as typed → HTML that is safe in anybody's page.

Two well-kept libraries, one behind the other: markdown-it-py makes no raw HTML, nh3 (ammonia) keeps a short list of tags
whatever the first one did. No images, no classes, no ids; links only to http, https and mailto.

No text within 16 KiB keeps a worker's loop. `markdown_limits` refuses what has too much of one structure, before anything is
parsed. Each step of the parser is counted, so that what the counts do not foresee ends as well, and after every few
milliseconds of steps the other greenlets have their turn.
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
from broadcast.content import autolinks, markdown_limits
from broadcast.content.autolinks import Address
from broadcast.domain.visible_text import is_blank

MAX_STEPS = 40_000  # of the parser in one text: some 100 ms; a newsletter with a hundred links takes 10,000
MAX_LEVELS = 20  # of quotes and lists in one another; a list is two
MAX_LINKS = 500  # addresses that become links by themselves
_MAX_SCHEME_CHARACTERS = 32  # characters before `://`

_ALLOWED_TAGS = {
    "p",
    "br",
    "hr",
    "strong",
    "em",
    "s",
    "code",
    "pre",
    "blockquote",
    "ul",
    "ol",
    "li",
    "a",
    "h3",
    "h4",
    "h5",
    "h6",
}
_ALLOWED_TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}

# One line in which no character means anything to Markdown, nor could be part of a link. Programs write such lines, thousands
# in a second, and both libraries together take 0.3 ms for each. A test compares this with what they say. Nothing is given back
# when a part does not fit (`++`, `*+`), as no character fits two of them.
_PLAIN_LINE = re.compile(r"[A-Za-z](?:[A-Za-z0-9,;!?'\"() ]++|[.:](?= |\Z)|(?<=[A-Za-z0-9])-(?=[A-Za-z0-9]))*+(?<! )")
_MAY_BE_ADDRESS = re.compile(r"\w[.@]\w|://")
_LONG_HOST = re.compile(r"(?:[a-z]+:)?(?://)?[^/?#]{320}", re.IGNORECASE)


def render(markdown: str) -> str:
    """Make HTML of a message of at most 16 KiB. Lets other greenlets run, so never call it inside a write transaction.

    Raises Invalid, about the field `content`: nothing of it can be seen, or it has more of a structure than is rendered.
    """
    if _PLAIN_LINE.fullmatch(markdown):
        return f"<p>{markdown}</p>\n"
    return _render_markdown(markdown)


def _render_markdown(markdown: str) -> str:
    markdown_limits.check_structure(markdown)
    budget = _WorkBudget()
    parser = copy.copy(_base_parser)
    parser.linkify = _AddressMatcher(budget)
    parser.normalizeLink = budget.normalize_link
    tokens = parser.parse(markdown, {"work": budget})
    if not any(map(_has_visible_text, tokens)):
        raise Invalid({"content": "The message has no visible text. Images and links without text are not shown."})
    for token in tokens:
        if token.tag in ("h1", "h2"):  # the page has its own h1, the card its title
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


class _WorkBudget:
    """What one text has cost so far."""

    def __init__(self) -> None:
        self._steps, self._links, self._yielder = 0, 0, Yielder()

    def count_step(self) -> None:
        """Count a step of the parser, and let others run when many have passed. Raises Invalid."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise markdown_limits.make_complexity_error()
        self._yielder.maybe_yield()

    def count_link(self) -> None:
        """Count an address that became a link by itself. Raises Invalid."""
        self.count_step()
        self._links += 1
        if self._links > MAX_LINKS:
            raise markdown_limits.make_link_count_error(MAX_LINKS)

    def normalize_link(self, url: str) -> str:
        """As the library does; some hundred lines of it for each address."""
        self.count_step()
        return _base_parser.normalizeLink(url)


class _AddressMatcher:
    """What the library asks for addresses; they are counted, with the words that may be some."""

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
    """Looking ahead for the end of a link costs a step for each sign, also where its result is remembered."""

    def skipToken(self, state: StateInline) -> None:  # noqa: N802 - a name of the library
        state.env["work"].count_step()
        super().skipToken(state)


def _count_inline_step(state: StateInline, silent: bool) -> bool:
    state.env["work"].count_step()
    return False


def _linkify_bounded(state: StateInline, silent: bool) -> bool:
    """The library's rule for `://`, which looks for the scheme in all the text since the last sign: here in its end alone."""
    if not state.src.startswith("://", state.pos):
        return False
    pending = state.pending
    if len(pending) <= _MAX_SCHEME_CHARACTERS:
        return linkify(state, silent)
    if not silent:
        state.pending = pending[:-_MAX_SCHEME_CHARACTERS]
        state.pushPending()  # the library joins texts that stand side by side
        state.pending = pending[-_MAX_SCHEME_CHARACTERS:]
        return linkify(state, silent)
    state.pending = pending[-_MAX_SCHEME_CHARACTERS:]
    is_link = linkify(state, silent)
    state.pending = pending
    return is_link


def _is_url_too_long(url: str) -> bool:
    """Such an address is left as text. Writing a host in Punycode takes time that grows with the square of its length."""
    return len(url) > autolinks.MAX_ADDRESS_CHARACTERS or _LONG_HOST.match(url) is not None


def _count_block_step(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A rule that never fits: it counts. What is nested too deeply, the library would drop without a word."""
    state.env["work"].count_step()
    if state.level > MAX_LEVELS:
        raise markdown_limits.make_nesting_error(MAX_LEVELS // 2, MAX_LEVELS)
    return False


def _has_visible_text(token: Token) -> bool:
    if token.type == "inline":
        return any(map(_has_visible_text, token.children))
    return token.type in ("text", "text_special", "code_inline", "code_block", "fence") and not is_blank(token.content)


def _render_tokens(tokens: Sequence[Token], budget: _WorkBudget) -> Iterator[str]:
    """The HTML of tokens, piece by piece, as the renderer of the library makes it in one go."""
    for index, token in enumerate(tokens):
        budget.count_step()
        if token.type == "inline":
            yield from _render_tokens(token.children, budget)
        elif (rule := _base_parser.renderer.rules.get(token.type)) is not None:
            yield rule(tokens, index, _base_parser.options, {})
        else:
            yield _base_parser.renderer.renderToken(tokens, index, _base_parser.options, {})


def _make_parser() -> MarkdownIt:
    # Deeper than MOST_LEVELS can be: `_count_block_step` refuses before the library leaves anything away
    parser = MarkdownIt("js-default", {"html": False, "linkify": True, "breaks": True, "maxNesting": MAX_LEVELS + 10})
    # nh3 judges schemes but lets an address without one pass: `//elsewhere`, or a path of this site
    parser.validateLink = lambda url: url.lower().startswith(("http://", "https://", "mailto:"))
    normalize_link = parser.normalizeLink
    parser.normalizeLink = lambda url: "" if _is_url_too_long(url) else normalize_link(url)
    inline, parser.inline = parser.inline, _StepCountingInlineParser()
    parser.inline.ruler, parser.inline.ruler2 = inline.ruler, inline.ruler2
    parser.inline.ruler.before("text", "step", _count_inline_step)
    parser.inline.ruler.at("linkify", _linkify_bounded)
    interruptible_rules = [
        "paragraph",
        "reference",
        "blockquote",
        "list",
    ]  # also wherever these look for their last line
    parser.block.ruler.before("table", "step", _count_block_step, {"alt": interruptible_rules})
    return parser


_base_parser = _make_parser()
