"""Lists of people as they come out of spreadsheets: which rows are somebody, and which are not, and why."""

import csv
from dataclasses import dataclass
from io import StringIO

from broadcast.domain.message import MOST_TARGETS
from broadcast.store import people

_HEADINGS = {"username", "user", "login", "name", "user name", "id", "person"}
SHOWN = 20  # bad rows told one by one


@dataclass(frozen=True, slots=True)
class BadRow:
    line: int
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """`good` are usernames or ids as they were given; `bad` the rows that are nobody, in order."""

    good: list[str]
    bad: list[BadRow]
    repeated: int


def judge(text: str) -> Report:
    """Read a pasted list or a CSV file: one person a row, in its first column or in the one headed "username".

    A few hundred queries for 50,000 rows, each short; never raises for input.
    """
    rows, bad = _cells(text)
    first_seen: dict[str, int] = {}
    for line, cell in rows:
        first_seen.setdefault(cell.lower(), line)
    kept = dict(list(first_seen.items())[:MOST_TARGETS])
    found = people.ids_by_name([int(name) if _is_id(name) else name for name in kept])
    good = [name for name in kept if (int(name) if _is_id(name) else name) in found]
    known = set(good)
    bad += [
        BadRow(line, name[:60], "nobody has this name, or the account is disabled")
        for name, line in kept.items()
        if name not in known
    ]
    bad += [
        BadRow(line, name[:60], f"more than {MOST_TARGETS:,} people")
        for name, line in list(first_seen.items())[MOST_TARGETS:]
    ]
    return Report(good, sorted(bad, key=lambda row: row.line), repeated=len(rows) - len(first_seen))


def _cells(text: str) -> tuple[list[tuple[int, str]], list[BadRow]]:
    """The cell of each row that should be a name, with its line; and the rows that have none."""
    lines = text.lstrip("\ufeff").replace("\0", "").splitlines()
    if len(lines) == 1 and _heading(_split(lines[0])) is None:  # a list in one line: each cell is somebody
        lines = _split(lines[0])
    column, cells, bad = 0, [], []
    for line, raw in enumerate(lines, 1):
        row = _split(raw)
        if line == 1 and (heading := _heading(row)) is not None:
            column = heading
            continue
        if not any(row):
            continue
        cell = row[column] if column < len(row) else ""
        if not 0 < len(cell) <= 64 or not cell.isprintable():
            bad.append(BadRow(line, raw[:60], "no username in this row"))
        else:
            cells.append((line, cell))
    return cells, bad


def _split(raw: str) -> list[str]:
    delimiter = next((mark for mark in ";\t," if mark in raw), ",")
    try:
        row = next(csv.reader(StringIO(raw), delimiter=delimiter), [])
    except csv.Error:
        row = [raw]
    return [cell.strip() for cell in row]


def _heading(row: list[str]) -> int | None:
    names = [cell.lower() for cell in row]
    for wanted in ("username", "login", "user"):
        if wanted in names:
            return names.index(wanted)
    return 0 if names and names[0] in _HEADINGS else None


def _is_id(name: str) -> bool:
    return name.isascii() and name.isdigit() and 0 < int(name) < 2**63
