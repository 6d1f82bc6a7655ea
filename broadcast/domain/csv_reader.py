"""Tables as people get them out of spreadsheets: which encoding, which delimiter, and the cells of each record.

The one reader of CSV: for the recipients of a broadcast, pasted or uploaded, and for the import of people. Excel writes commas
in some countries and semicolons in others, tabs and UTF-16 as "Unicode text", and Windows-1252 unless it is asked for UTF-8.

Records are made one by one, each bounded before it is taken apart, so that whoever walks through them can pause in between.
"""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from broadcast.base.errors import Invalid
from broadcast.domain.signed_csv import SIGNATURE_MARK

MAX_ROWS = 50_000
_MAX_LINES = 4 * MAX_ROWS  # blank lines included
_DELIMITERS = ";\t,"
_RECORD_LINES = 20  # lines over which the quotation marks of one record may reach
_RECORD_CHARACTERS = 10_000
_RECORD_CELLS = 1000
_NOT_A_TABLE = "This is not a text file. In Excel, save it as “CSV UTF-8” and choose that file."
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx, .ods, and .xls
_QUOTED = re.compile(r'"[^"]*"')


@dataclass(frozen=True, slots=True)
class Record:
    """One row. `line` counts from 1; `cells` are stripped, and empty for a blank line or where `problem` says what is wrong.

    `text` is how it stands in the table, without its line end.
    """

    line: int
    text: str
    cells: list[str]
    problem: str | None = None


def decode(data: bytes) -> tuple[str, str | None]:
    """The text of a file; and the name of its encoding when that was a guess, which somebody should look at.

    Raises Invalid for a workbook, and for what is no text.
    """
    if data.startswith(_WORKBOOKS):
        raise Invalid(
            {"table": "This is a workbook, not a CSV file. In Excel, save it as “CSV UTF-8” and choose that file."}
        )
    if encoding := _utf_16(data):
        try:
            return data.decode(encoding), None
        except UnicodeDecodeError:
            raise Invalid({"table": _NOT_A_TABLE}) from None
    for encoding, guessed in (("utf-8-sig", None), ("cp1252", "Windows-1252")):
        try:
            return data.decode(encoding), guessed
        except UnicodeDecodeError:
            continue
    raise Invalid({"table": _NOT_A_TABLE})


def _utf_16(data: bytes) -> str | None:
    """UTF-16 with its mark, as "Unicode text" has it, or without, which ASCII in it gives away."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    beginning = data[:200]
    for encoding, nulls in (("utf-16-le", beginning[1::2]), ("utf-16-be", beginning[::2])):
        if nulls and nulls.count(0) > len(nulls) // 2:
            return encoding
    return None


def single_line(text: str) -> list[str] | None:
    """The cells of a text that is one line, at most one more than MAX_ROWS of them; None when it has several lines."""
    line = text.lstrip("\ufeff").strip()
    if "\n" in line or "\r" in line:
        return None
    cells = line.split(_delimiter(line) or ",", MAX_ROWS + 1)[: MAX_ROWS + 1]
    return [cell.strip().strip('"').strip() for cell in cells]


def records(text: str, *, most: int = MAX_ROWS) -> Iterator[Record]:
    """The records of a table, blank ones included; after a heading and `most` others a last one tells that there were more.

    The delimiter is the one that the first line with any has most of, or what a line "sep=;" says.
    """
    lines, count = _Lines(text.removeprefix("\ufeff")), 0
    delimiter = lines.take_directive()
    while (line := lines.take()) is not None:
        number = lines.number
        if not line.strip() or line.startswith(SIGNATURE_MARK):
            yield Record(number, "", [])
            if number <= _MAX_LINES:
                continue
        count += 1
        if count > most + 1 or number > _MAX_LINES:
            yield too_many(number, most)
            return
        delimiter = delimiter or _delimiter(line)
        yield _record(line, lines, delimiter or ",")


def too_many(number: int, most: int = MAX_ROWS) -> Record:
    """What is said in the place of all rows from this line on."""
    return Record(number, "", [], f"At most {most:,} rows are read; the rest was left out.")


class _Lines:
    """The lines of a text, with a look at those to come. Only \\n, \\r and \\r\\n end a line."""

    def __init__(self, text: str):
        self._source, self._ahead, self.number = io.StringIO(text, newline=""), deque(), 0

    def take(self) -> str | None:
        line = self._ahead.popleft() if self._ahead else self._source.readline() or None
        self.number += line is not None
        return line

    def ahead(self, distance: int) -> str | None:
        while len(self._ahead) <= distance:
            line = self._source.readline()
            if not line:
                return None
            self._ahead.append(line)
        return self._ahead[distance]

    def take_directive(self) -> str | None:
        """The delimiter that Excel's own first line names: "sep=;"."""
        first = (self.ahead(0) or "").rstrip("\r\n")
        if len(first) != 5 or not first.lower().startswith("sep="):
            return None
        self.take()
        return first[4]


def _delimiter(line: str) -> str | None:
    bare = _QUOTED.sub("", line[:_RECORD_CHARACTERS])
    best = max(_DELIMITERS, key=bare.count)
    return best if best in bare else None


def _record(first: str, lines: _Lines, delimiter: str) -> Record:
    """The record that begins with this line. If no quotation mark ends what one begins, the line stands for itself."""
    number, whole, more = lines.number, first, 0
    while whole.count('"') % 2 and more < _RECORD_LINES and len(whole) <= _RECORD_CHARACTERS:
        following = lines.ahead(more)
        if following is None:
            break
        whole, more = whole + following, more + 1
    record = _parse(number, whole, delimiter)
    if record.problem and more:
        return _parse(number, first, delimiter)
    for _ in range(more):
        lines.take()
    return record


def _parse(number: int, raw: str, delimiter: str) -> Record:
    text = raw.rstrip("\r\n")
    if len(raw) > 2 * _RECORD_CHARACTERS or raw.count(delimiter) >= _RECORD_CELLS:
        return Record(number, text[:_RECORD_CHARACTERS], [], "This row is too long.")
    try:
        [cells] = csv.reader([text], delimiter=delimiter, strict=True, skipinitialspace=True)
    except (csv.Error, ValueError):
        return Record(number, text, [], "A quotation mark in this row is not closed, or stands where it cannot.")
    return Record(number, text, [cell.strip() for cell in cells])
