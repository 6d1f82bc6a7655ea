"""Texts by grammar that make parsers slow, and how long a worker's loop would wait for them, in lines of Python."""

import sys
from collections.abc import Callable

import pytest
from hypothesis import strategies as st

from broadcast.base.cooperative import Yielder

MAX_TEXT_BYTES = 16 * 1024
_FRAGMENTS = [
    "[", "]", "](", "![", "[a](http://b.co) ", "[a]", "[a][", "[a]: b\n", "(", ")", "{", "<", "<a ", "<http://a.co>",
    "<!--",
    "http://", "http://[", "https://a.", "www.", "a.com ", "a@b.co ", "mailto:", "//a", "://", ":", "@", "é+a.", "a-", "xn--",
    "*", "**a", "_a_ ", "~~a", "***",
    "`", "``a`", "&", "&amp;", "&#1;", "\\", "\\[", "|", "|-",
    "\n|-|-\n", "| a | b |\n",
    "\n", "\n\n", "- ", "> ", "1. ", "# ", "---\n", "```\n", "    ", "\t", "-", "=", "\"", "'", "!", ".",
    "a", "word ", "é", "😀", "\u200b", "\u3000", "\u2800", "x" * 50,
]  # fmt: skip
_repeated_fragments = st.builds(
    lambda units, times: "".join(units) * min(times, MAX_TEXT_BYTES // len("".join(units))),
    st.lists(st.sampled_from(_FRAGMENTS), min_size=1, max_size=4),
    st.sampled_from([1, 5, 25, 99, 400, 999, 1999, MAX_TEXT_BYTES]),
)
pathological_texts = st.lists(_repeated_fragments, min_size=1, max_size=4).map(
    lambda parts: truncate_text("".join(parts))
)


def truncate_text(text: str) -> str:
    """As much of a text as one message may have."""
    return text.encode()[:MAX_TEXT_BYTES].decode("utf-8", "ignore")


class LineCounter:
    """Lines of Python that ran: `max_between_yields` between two moments at which other greenlets may run, `total` together."""

    def __init__(self) -> None:
        self.max_between_yields = self.total = self._since_yield = 0

    def _on_yield(self) -> None:
        self.max_between_yields, self._since_yield = max(self.max_between_yields, self._since_yield), 0

    def _trace(self, frame, event: str, arg: object):
        if event == "line":
            self._since_yield += 1
            self.total += 1
        return self._trace


def count_lines(work: Callable[[], object]) -> LineCounter:
    """Do the work and count; its Breaths are noticed and not taken."""
    counter, previous_trace = LineCounter(), sys.gettrace()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Yielder, "maybe_yield", lambda breath: counter._on_yield())
        sys.settrace(counter._trace)
        try:
            work()
        finally:
            sys.settrace(previous_trace)
    counter._on_yield()
    return counter
