"""Texts by grammar that make parsers slow, and how long a worker's loop would wait for them, in lines of Python."""

import sys
from collections.abc import Callable

import pytest
from hypothesis import strategies as st

from broadcast.base.cooperative import Breath

SIZE = 16 * 1024
_UNITS = [
    "[", "]", "](", "![", "[a](http://b.co) ", "[a]", "[a][", "[a]: b\n", "(", ")", "{", "<", "<a ", "<http://a.co>",
    "<!--",
    "http://", "http://[", "https://a.", "www.", "a.com ", "a@b.co ", "mailto:", "//a", "://", ":", "@", "é+a.", "a-", "xn--",
    "*", "**a", "_a_ ", "~~a", "***",
    "`", "``a`", "&", "&amp;", "&#1;", "\\", "\\[", "|", "|-",
    "\n|-|-\n", "| a | b |\n",
    "\n", "\n\n", "- ", "> ", "1. ", "# ", "---\n", "```\n", "    ", "\t", "-", "=", "\"", "'", "!", ".",
    "a", "word ", "é", "😀", "\u200b", "\u3000", "\u2800", "x" * 50,
]  # fmt: skip
_repeated = st.builds(
    lambda units, times: "".join(units) * min(times, SIZE // len("".join(units))),
    st.lists(st.sampled_from(_UNITS), min_size=1, max_size=4),
    st.sampled_from([1, 5, 25, 99, 400, 999, 1999, SIZE]),
)
nasty_texts = st.lists(_repeated, min_size=1, max_size=4).map(lambda parts: cut("".join(parts)))


def cut(text: str) -> str:
    """As much of a text as one message may have."""
    return text.encode()[:SIZE].decode("utf-8", "ignore")


class Lines:
    """Lines of Python that ran: `most` between two moments at which other greenlets may run, `all` together."""

    def __init__(self) -> None:
        self.most = self.all = self._since = 0

    def _turn(self) -> None:
        self.most, self._since = max(self.most, self._since), 0

    def _trace(self, frame, event: str, arg: object):
        if event == "line":
            self._since += 1
            self.all += 1
        return self._trace


def lines_of(work: Callable[[], object]) -> Lines:
    """Do the work and count; its Breaths are noticed and not taken."""
    lines, before = Lines(), sys.gettrace()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Breath, "take", lambda breath: lines._turn())
        sys.settrace(lines._trace)
        try:
            work()
        finally:
            sys.settrace(before)
    lines._turn()
    return lines
