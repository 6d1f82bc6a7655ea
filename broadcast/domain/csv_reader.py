"""Reads tables exported from spreadsheets: detects encoding and delimiter, and yields the cells of each record.

The only CSV reader: for a broadcast's recipients (pasted or uploaded) and for the import of users. Excel writes commas
in some countries and semicolons in others, tabs and UTF-16 as "Unicode text", and Windows-1252 unless told UTF-8.

Records are yielded one by one and bounded before they are parsed, so the caller can yield in between.
"""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from broadcast.base.errors import Invalid
from broadcast.domain.signed_csv import SIGNATURE_PREFIX

MAX_ROWS = 50_000
_MAX_LINES = 4 * MAX_ROWS  # blank lines included
_DELIMITERS = ";\t,"
_MAX_RECORD_LINES = 20  # lines that a quoted record may span
_MAX_RECORD_CHARACTERS = 10_000
_MAX_RECORD_CELLS = 1000
_HOW_TO_SAVE = "In Excel, save it as “CSV UTF-8” and choose that file."
_WORKBOOK_SIGNATURES = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx, .ods, and .xls
_QUOTED_TEXT = re.compile(r'"[^"]*"')


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row as written; `line` counts from 1. `cells` are stripped, and empty for a blank line or with a `problem`."""

    line: int
    text: str
    cells: list[str]
    problem: str | None = None


def decode_table(data: bytes) -> tuple[str, str | None]:
    """The text of a file, and the name of its encoding if that is a guess. Raises Invalid for anything but text."""
    if data.startswith(_WORKBOOK_SIGNATURES):
        raise Invalid({"table": f"This is a workbook, not a CSV file. {_HOW_TO_SAVE}"})
    utf_16 = _detect_utf_16(data)
    for encoding, guessed_name in [(utf_16, None)] if utf_16 else [("utf-8-sig", None), ("cp1252", "Windows-1252")]:
        try:
            return data.decode(encoding), guessed_name
        except UnicodeDecodeError:
            continue
    raise Invalid({"table": f"This is not a text file. {_HOW_TO_SAVE}"})


def _detect_utf_16(data: bytes) -> str | None:
    """UTF-16 with a byte order mark, as in "Unicode text", or without one but with the zero bytes of ASCII."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    beginning = data[:200]
    for encoding, high_bytes in (("utf-16-le", beginning[1::2]), ("utf-16-be", beginning[::2])):
        if high_bytes and high_bytes.count(0) > len(high_bytes) // 2:
            return encoding
    return None


def split_single_line(text: str) -> list[str] | None:
    """The cells of a single-line text, at most MAX_ROWS + 1; None if it has several lines."""
    line = text.lstrip("\ufeff").strip()
    if "\n" in line or "\r" in line:
        return None
    cells = line.split(_guess_delimiter(line) or ",", MAX_ROWS + 1)[: MAX_ROWS + 1]
    return [cell.strip().strip('"').strip() for cell in cells]


def parse_rows(text: str, *, max_rows: int = MAX_ROWS) -> Iterator[TableRow]:
    """The records of a table, blank ones too: at most a heading and `max_rows`, then one that says there were more."""
    lines, row_count = _LineReader(text.removeprefix("\ufeff")), 0
    delimiter = lines.read_separator_directive()
    while (line := lines.read_line()) is not None:
        line_number = lines.line_number
        if not line.strip() or line.startswith(SIGNATURE_PREFIX):
            yield TableRow(line_number, "", [])
            if line_number <= _MAX_LINES:
                continue
        row_count += 1
        if row_count > max_rows + 1 or line_number > _MAX_LINES:
            yield make_too_many_row(line_number, max_rows)
            return
        delimiter = delimiter or _guess_delimiter(line)
        yield _read_row(line, lines, delimiter or ",")


def make_too_many_row(line_number: int, max_rows: int = MAX_ROWS) -> TableRow:
    """The row that stands for all rows from this line on."""
    return TableRow(line_number, "", [], f"At most {max_rows:,} rows are read; the rest was left out.")


class _LineReader:
    """The lines of a text, with lookahead. Only \\n, \\r and \\r\\n end a line."""

    def __init__(self, text: str):
        self._source, self._lookahead, self.line_number = io.StringIO(text, newline=""), deque(), 0

    def read_line(self) -> str | None:
        line = self._lookahead.popleft() if self._lookahead else self._source.readline() or None
        self.line_number += line is not None
        return line

    def peek_line(self, distance: int) -> str | None:
        while len(self._lookahead) <= distance:
            line = self._source.readline()
            if not line:
                return None
            self._lookahead.append(line)
        return self._lookahead[distance]

    def read_separator_directive(self) -> str | None:
        """The delimiter from Excel's own first line, "sep=;"."""
        first_line = (self.peek_line(0) or "").rstrip("\r\n")
        if len(first_line) != 5 or not first_line.lower().startswith("sep="):
            return None
        self.read_line()
        return first_line[4]


def _guess_delimiter(line: str) -> str | None:
    unquoted = _QUOTED_TEXT.sub("", line[:_MAX_RECORD_CHARACTERS])
    best = max(_DELIMITERS, key=unquoted.count)
    return best if best in unquoted else None


def _read_row(first_line: str, lines: _LineReader, delimiter: str) -> TableRow:
    """The record that begins with this line. If its quotation mark is never closed, the line is its own record."""
    line_number, text, extra_lines = lines.line_number, first_line, 0
    while text.count('"') % 2 and extra_lines < _MAX_RECORD_LINES and len(text) <= _MAX_RECORD_CHARACTERS:
        next_line = lines.peek_line(extra_lines)
        if next_line is None:
            break
        text, extra_lines = text + next_line, extra_lines + 1
    record = _parse_row(line_number, text, delimiter)
    if record.problem and extra_lines:
        return _parse_row(line_number, first_line, delimiter)
    for _ in range(extra_lines):
        lines.read_line()
    return record


def _parse_row(line_number: int, raw: str, delimiter: str) -> TableRow:
    text = raw.rstrip("\r\n")
    if len(raw) > 2 * _MAX_RECORD_CHARACTERS or raw.count(delimiter) >= _MAX_RECORD_CELLS:
        return TableRow(line_number, text[:_MAX_RECORD_CHARACTERS], [], "This row is too long.")
    try:
        [cells] = csv.reader([text], delimiter=delimiter, strict=True, skipinitialspace=True)
    except (csv.Error, ValueError):
        return TableRow(line_number, text, [], "A quotation mark in this row is not closed, or stands where it cannot.")
    return TableRow(line_number, text, [cell.strip() for cell in cells])
