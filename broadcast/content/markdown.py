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

from broadcast.base.cooperative import Breath
from broadcast.base.errors import Invalid
from broadcast.content import autolinks, markdown_limits
from broadcast.content.autolinks import Address
from broadcast.domain.visible_text import is_blank

MOST_STEPS = 40_000  # of the parser in one text: some 100 ms; a newsletter with a hundred links takes 10,000
MOST_LEVELS = 20  # of quotes and lists in one another; a list is two
MOST_LINKS = 500  # addresses that become links by themselves
_LONGEST_SCHEME = 32  # characters before `://`

_TAGS = {
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
_TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}

# One line in which no character means anything to Markdown, nor could be part of a link. Programs write such lines, thousands
# in a second, and both libraries together take 0.3 ms for each. A test compares this with what they say. Nothing is given back
# when a part does not fit (`++`, `*+`), as no character fits two of them.
_PLAIN = re.compile(r"[A-Za-z](?:[A-Za-z0-9,;!?'\"() ]++|[.:](?= |\Z)|(?<=[A-Za-z0-9])-(?=[A-Za-z0-9]))*+(?<! )")
_MAY_BE_ADDRESS = re.compile(r"\w[.@]\w|://")
_LONG_HOST = re.compile(r"(?:[a-z]+:)?(?://)?[^/?#]{320}", re.IGNORECASE)


def render(markdown: str) -> str:
    """Make HTML of a message of at most 16 KiB. Lets other greenlets run, so never call it inside a write transaction.

    Raises Invalid, about the field `content`: nothing of it can be seen, or it has more of a structure than is rendered.
    """
    if _PLAIN.fullmatch(markdown):
        return f"<p>{markdown}</p>\n"
    return _render(markdown)


def _render(markdown: str) -> str:
    markdown_limits.check(markdown)
    work = _Work()
    parser = copy.copy(_markdown)
    parser.linkify = _Addresses(work)
    parser.normalizeLink = work.normalize_link
    tokens = parser.parse(markdown, {"work": work})
    if not any(map(_shows_text, tokens)):
        raise Invalid(
            {"content": "The message has no text that can be seen. Images are not shown, nor links without words."}
        )
    for token in tokens:
        if token.tag in ("h1", "h2"):  # the page has its own h1, the card its title
            token.tag = "h3"
    html = "".join(_written(tokens, work))
    return nh3.clean(
        html,
        tags=_TAGS,
        attributes={"a": {"href", "title"}, "ol": {"start"}},
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
    )


class _Work:
    """What one text has cost so far."""

    def __init__(self) -> None:
        self._steps, self._links, self._breath = 0, 0, Breath()

    def step(self) -> None:
        """Count a step of the parser, and let others run when many have passed. Raises Invalid."""
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise markdown_limits.too_intricate()
        self._breath.take()

    def link(self) -> None:
        """Count an address that became a link by itself. Raises Invalid."""
        self.step()
        self._links += 1
        if self._links > MOST_LINKS:
            raise markdown_limits.too_many_addresses(MOST_LINKS)

    def normalize_link(self, url: str) -> str:
        """As the library does; some hundred lines of it for each address."""
        self.step()
        return _markdown.normalizeLink(url)


class _Addresses:
    """What the library asks for addresses; they are counted, with the words that may be some."""

    def __init__(self, work: _Work):
        self._work = work

    def pretest(self, text: str) -> bool:
        return _MAY_BE_ADDRESS.search(text) is not None

    def test(self, text: str) -> bool:
        self._work.step()
        return self.pretest(text)

    def match(self, text: str) -> list[Address]:
        return [self._counted(address) for address in autolinks.find(text)]

    def match_at_start(self, text: str) -> Address | None:
        address = autolinks.at_start(text[: autolinks.LONGEST + 1])
        return address and self._counted(address)

    def _counted(self, address: Address) -> Address:
        self._work.link()
        return address


class _CountedInline(ParserInline):
    """Looking ahead for the end of a link costs a step for each sign, also where its result is remembered."""

    def skipToken(self, state: StateInline) -> None:  # noqa: N802 - a name of the library
        state.env["work"].step()
        super().skipToken(state)


def _step_inline(state: StateInline, silent: bool) -> bool:
    state.env["work"].step()
    return False


def _address_here(state: StateInline, silent: bool) -> bool:
    """The library's rule for `://`, which looks for the scheme in all the text since the last sign: here in its end alone."""
    if not state.src.startswith("://", state.pos):
        return False
    pending = state.pending
    if len(pending) <= _LONGEST_SCHEME:
        return linkify(state, silent)
    if not silent:
        state.pending = pending[:-_LONGEST_SCHEME]
        state.pushPending()  # the library joins texts that stand side by side
        state.pending = pending[-_LONGEST_SCHEME:]
        return linkify(state, silent)
    state.pending = pending[-_LONGEST_SCHEME:]
    found = linkify(state, silent)
    state.pending = pending
    return found


def _is_too_long(url: str) -> bool:
    """Such an address is left as text. Writing a host in Punycode takes time that grows with the square of its length."""
    return len(url) > autolinks.LONGEST or _LONG_HOST.match(url) is not None


def _step_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A rule that never fits: it counts. What is nested too deeply, the library would drop without a word."""
    state.env["work"].step()
    if state.level > MOST_LEVELS:
        raise markdown_limits.too_deep(MOST_LEVELS // 2, MOST_LEVELS)
    return False


def _shows_text(token: Token) -> bool:
    if token.type == "inline":
        return any(map(_shows_text, token.children))
    return token.type in ("text", "text_special", "code_inline", "code_block", "fence") and not is_blank(token.content)


def _written(tokens: Sequence[Token], work: _Work) -> Iterator[str]:
    """The HTML of tokens, piece by piece, as the renderer of the library makes it in one go."""
    for n, token in enumerate(tokens):
        work.step()
        if token.type == "inline":
            yield from _written(token.children, work)
        elif (rule := _markdown.renderer.rules.get(token.type)) is not None:
            yield rule(tokens, n, _markdown.options, {})
        else:
            yield _markdown.renderer.renderToken(tokens, n, _markdown.options, {})


def _parser() -> MarkdownIt:
    # Deeper than MOST_LEVELS can be: `_step_block` refuses before the library leaves anything away
    parser = MarkdownIt("js-default", {"html": False, "linkify": True, "breaks": True, "maxNesting": MOST_LEVELS + 10})
    # nh3 judges schemes but lets an address without one pass: `//elsewhere`, or a path of this site
    parser.validateLink = lambda url: url.lower().startswith(("http://", "https://", "mailto:"))
    normalized = parser.normalizeLink
    parser.normalizeLink = lambda url: "" if _is_too_long(url) else normalized(url)
    inline, parser.inline = parser.inline, _CountedInline()
    parser.inline.ruler, parser.inline.ruler2 = inline.ruler, inline.ruler2
    parser.inline.ruler.before("text", "step", _step_inline)
    parser.inline.ruler.at("linkify", _address_here)
    everywhere = ["paragraph", "reference", "blockquote", "list"]  # also wherever these look for their last line
    parser.block.ruler.before("table", "step", _step_block, {"alt": everywhere})
    return parser


_markdown = _parser()
