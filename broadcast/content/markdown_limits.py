"""How much structure one message may have, told before anything is parsed, in sentences that name what there is too much of.

The figures are several times what people write in 16 KiB: a newsletter with a hundred links and a table of two hundred rows
has a third of each.
"""

import re
from typing import NamedTuple

from broadcast.base.errors import Invalid


class _Limit(NamedTuple):
    pattern: re.Pattern[str]
    most: int
    name: str


_LIMITS = (
    _Limit(re.compile(r"\n"), 2000, "line breaks"),
    _Limit(re.compile(r"\["), 1000, "opening square brackets"),
    _Limit(re.compile(r"[*_~]"), 3000, "signs of emphasis (* _ ~)"),
    _Limit(re.compile(r"`+"), 2000, "backticks"),
    _Limit(re.compile(r"<"), 2000, "opening angle brackets"),
    _Limit(re.compile(r"&"), 2000, "ampersands"),
    _Limit(re.compile(r"\\"), 2000, "backslashes"),
    _Limit(re.compile(r"\|"), 4000, "vertical bars of tables"),
)
_MOST_CELLS = 4000  # of all tables, with those that Markdown fills up because a row is shorter than the head
_MOST_MARKERS = 100  # of quotes and lists at the beginning of one line; a line drawn as `- - -` is as wide as a page
_MARKER = re.compile(r"[ \t]*+(?:[-+*>]|\d{1,9}[.)])(?=[ \t>])")
_UNDER_HEAD = re.compile(r"[ \t>*+\d.)|:-]++")  # the line of a table below its head, in a list or a quote perhaps


def check(markdown: str) -> None:
    """Raise Invalid, about the field `content`, for a message with more of a structure than is rendered; in linear time."""
    for limit in _LIMITS:
        if (found := sum(1 for _ in limit.pattern.finditer(markdown))) > limit.most:
            raise _refusal(f"It has {found:,} {limit.name}; at most {limit.most:,} fit.")
    lines = markdown.split("\n")
    for line in lines:
        if _markers(line) > _MOST_MARKERS:
            raise _refusal(f"A line begins with more than {_MOST_MARKERS} signs of lists and quotes.")
    if (cells := _cells(lines)) > _MOST_CELLS:
        raise _refusal(f"Its tables have {cells:,} cells; at most {_MOST_CELLS:,} fit.")


def _markers(line: str) -> int:
    found = at = 0
    while (marker := _MARKER.match(line, at)) and found <= _MOST_MARKERS:
        found, at = found + 1, marker.end()
    return found


def _cells(lines: list[str]) -> int:
    """The cells of all tables, or more: each row has as many as the head, down to the next blank line."""
    cells = columns = 0
    for line in lines:
        if not line.strip(" \t>"):
            columns = 0
        elif "-" in line and ("|" in line or ":" in line) and _UNDER_HEAD.fullmatch(line):
            columns = max(columns, line.count("|") + 1)
            cells += 2 * columns
        else:
            cells += columns
    return cells


def too_many_addresses(most: int) -> Invalid:
    return _refusal(f"It has more than {most:,} web and mail addresses, and each would become a link.")


def too_deep(lists: int, quotes: int) -> Invalid:
    return _refusal(f"At most {lists} lists, or {quotes} quotes, fit in one another.")


def too_intricate() -> Invalid:
    return _refusal("It has too many links, brackets and other signs of formatting in one another.")


def _refusal(what: str) -> Invalid:
    return Invalid(
        {"content": f"The message is too intricate to be shown. {what} Make it simpler, or send it in parts."}
    )
