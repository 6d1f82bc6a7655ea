"""Lists of people as they come out of spreadsheets: which rows are somebody, and which are not, and why."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from broadcast.base.cooperative import Breath
from broadcast.domain import csv_reader
from broadcast.domain.csv_reader import Record
from broadcast.domain.message import id_or_username
from broadcast.store import users

_HEADINGS = (
    "username",
    "login",
    "user",
    "user name",
    "user id",
    "id",
    "person",
    "name",
)  # the first of them that there is
SHOWN = 20  # bad rows told one by one


@dataclass(frozen=True, slots=True)
class BadRow:
    line: int
    text: str
    why: str


@dataclass(slots=True)
class Report:
    """`good` are usernames, each once; `bad` the rows that are nobody, in order."""

    good: list[str] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    repeated: int = 0


def judge(text: str) -> Report:
    """Read a pasted list or a CSV file: one person a row, by username or id, in its first column or in the one with a heading.

    A few hundred queries for 50,000 rows, each short; never raises for input. Lets other greenlets run.
    """
    report, breath, asked = Report(), Breath(), {}
    for line, cell in _cells(text.replace("\0", ""), report, breath):
        name = id_or_username(cell.lower())
        report.repeated += name in asked
        asked.setdefault(name, line)
        breath.take()
    found = users.ids_by_name([name for name in asked if isinstance(name, str) or name < 2**63])
    usernames = users.usernames(found[name] for name in asked if isinstance(name, int) and name in found)
    good: dict[str, None] = {}
    for name, line in asked.items():
        if name not in found:
            report.bad.append(BadRow(line, str(name)[:60], _nobody(name)))
        else:
            username = usernames[name] if isinstance(name, int) else name
            report.repeated += username in good  # once by name and once by id
            good[username] = None
        breath.take()
    report.good = list(good)
    report.bad.sort(key=lambda row: row.line)
    return report


def _nobody(name: int | str) -> str:
    what = "this id" if isinstance(name, int) else "this name"
    return f"nobody has {what}, or the account is disabled"


def _cells(text: str, report: Report, breath: Breath) -> Iterator[tuple[int, str]]:
    """The cell of each row that should be a name, with its line; rows that have none go into the report."""
    column = None
    for record in _records(text):
        breath.take()
        if record.problem:
            report.bad.append(BadRow(record.line, record.text[:60], record.problem.rstrip(".").lower()))
            continue
        if not any(record.cells):
            continue
        if column is None:
            heading = _heading(record.cells)
            column = heading or 0
            if heading is not None:
                continue
        cell = record.cells[column] if column < len(record.cells) else ""
        if not 0 < len(cell) <= 64 or not cell.isprintable():
            report.bad.append(BadRow(record.line, record.text[:60], "no username in this row"))
        else:
            yield record.line, cell


def _records(text: str) -> Iterator[Record]:
    """The rows of a table. A list in one line is turned on its side: each cell is somebody."""
    cells = csv_reader.single_line(text)
    if cells is None or len(cells) == 1 or _heading(cells) is not None:
        yield from csv_reader.records(text)
        return
    for line, cell in enumerate(cells[: csv_reader.MAX_ROWS], 1):
        yield Record(line, cell, [cell])
    if len(cells) > csv_reader.MAX_ROWS:
        yield csv_reader.too_many(len(cells))


def _heading(row: list[str]) -> int | None:
    """The column that holds the people; None when the row is no heading. "Name" is one only where it stands first."""
    names = [cell.lower() for cell in row]
    for wanted in _HEADINGS[:-1]:
        if wanted in names:
            return names.index(wanted)
    return 0 if names[:1] == [_HEADINGS[-1]] else None
