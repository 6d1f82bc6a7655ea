"""Limits of structure in one message, checked before parsing; the error names what there is too much of.

The limits are several times what people write in 16 KiB: a newsletter with a hundred links and a table of two hundred
rows has a third of each.
"""

import re
from typing import NamedTuple

from broadcast.base.errors import Invalid


class _StructureLimit(NamedTuple):
    pattern: re.Pattern[str]
    max_count: int
    label: str


_LIMITS = (
    _StructureLimit(re.compile(r"\n"), 2000, "line breaks"),
    _StructureLimit(re.compile(r"\["), 1000, "opening square brackets"),
    _StructureLimit(re.compile(r"[*_~]"), 3000, "emphasis characters (* _ ~)"),
    _StructureLimit(re.compile(r"`+"), 2000, "backticks"),
    _StructureLimit(re.compile(r"<"), 2000, "opening angle brackets"),
    _StructureLimit(re.compile(r"&"), 2000, "ampersands"),
    _StructureLimit(re.compile(r"\\"), 2000, "backslashes"),
    _StructureLimit(re.compile(r"\|"), 4000, "vertical bars of tables"),
)
_MAX_CELLS = 4000  # of all tables, including those that Markdown adds when a row is shorter than the head
_MAX_MARKERS = 100  # quote and list markers at the start of one line; a line drawn as `- - -` is as wide as a page
_MARKER_PATTERN = re.compile(r"[ \t]*+(?:[-+*>]|\d{1,9}[.)])(?=[ \t>])")
_TABLE_DELIMITER_ROW = re.compile(r"[ \t>*+\d.)|:-]++")  # the row below a table's head, perhaps in a list or a quote


def check_structure(markdown: str) -> None:
    """Raise Invalid for the field `content` if a message has more of a structure than is rendered. Linear time."""
    for limit in _LIMITS:
        if (count := sum(1 for _ in limit.pattern.finditer(markdown))) > limit.max_count:
            raise _make_error(f"It has {count:,} {limit.label}; at most {limit.max_count:,} fit.")
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


def make_link_count_error(max_count: int) -> Invalid:
    return _make_error(f"It has more than {max_count:,} web and email addresses, and each would become a link.")


def make_nesting_error(lists: int, quotes: int) -> Invalid:
    return _make_error(f"At most {lists} lists, or {quotes} quotes, can be nested.")


def make_complexity_error() -> Invalid:
    return _make_error("Its links, brackets or other formatting are nested too deeply.")


def _make_error(detail: str) -> Invalid:
    return Invalid({"content": f"The message is too complex to show. {detail} Simplify it, or send it in parts."})
