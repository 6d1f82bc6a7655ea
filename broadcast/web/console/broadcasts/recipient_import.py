"""Recipient lists from spreadsheets: which rows are users, which are not, and why."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from broadcast.base.cooperative import Yielder
from broadcast.domain import csv_reader
from broadcast.domain.csv_reader import TableRow
from broadcast.domain.message import parse_id_or_username
from broadcast.store import users

# the first that exists is used
_HEADINGS = ("username", "login", "user", "user name", "user id", "id", "person", "name")
MAX_BAD_ROWS_SHOWN = 20  # reported one by one


@dataclass(slots=True)
class ImportReport:
    """`good` has each username once; `bad` has the rows without a user, in order."""

    good: list[str] = field(default_factory=list)
    bad: list[TableRow] = field(default_factory=list)
    repeated: int = 0


def check_recipients(text: str) -> ImportReport:
    """Check a pasted list or CSV file: one user per row, by username or id, in the first column or the one with a
    heading.

    A few hundred short queries for 50,000 rows. Never raises for input. Lets other greenlets run.
    """
    report, yielder, lines_by_name = ImportReport(), Yielder(), {}
    for line, cell in _read_name_cells(text.replace("\0", ""), report, yielder):
        name = parse_id_or_username(cell.lower())
        report.repeated += name in lines_by_name
        lines_by_name.setdefault(name, line)
        yielder.maybe_yield()
    ids_by_name = users.resolve_ids([name for name in lines_by_name if isinstance(name, str) or name < 2**63])
    usernames = users.get_usernames(
        ids_by_name[name] for name in lines_by_name if isinstance(name, int) and name in ids_by_name
    )
    good_usernames: dict[str, None] = {}
    for name, line in lines_by_name.items():
        if name not in ids_by_name:
            what = "this id" if isinstance(name, int) else "this name"
            problem = f"nobody has {what}, or the account is disabled"
            report.bad.append(TableRow(line, str(name)[:60], [], problem))
        else:
            username = usernames[name] if isinstance(name, int) else name
            report.repeated += username in good_usernames  # once by username and once by id
            good_usernames[username] = None
        yielder.maybe_yield()
    report.good = list(good_usernames)
    report.bad.sort(key=lambda row: row.line)
    return report


def _read_name_cells(text: str, report: ImportReport, yielder: Yielder) -> Iterator[tuple[int, str]]:
    """The name cell of each row, with its line number. Rows without one go into the report."""
    column = None
    for record in _read_records(text):
        yielder.maybe_yield()
        if record.problem:
            report.bad.append(TableRow(record.line, record.text[:60], [], record.problem.rstrip(".").lower()))
            continue
        if not any(record.cells):
            continue
        if column is None:
            name_column = _find_name_column(record.cells)
            column = name_column or 0
            if name_column is not None:
                continue
        cell = record.cells[column] if column < len(record.cells) else ""
        if not 0 < len(cell) <= 64 or not cell.isprintable():
            report.bad.append(TableRow(record.line, record.text[:60], [], "no username in this row"))
        else:
            yield record.line, cell


def _read_records(text: str) -> Iterator[TableRow]:
    """The rows of a table. A list in one line is transposed: each cell is a row."""
    cells = csv_reader.split_single_line(text)
    if cells is None or len(cells) == 1 or _find_name_column(cells) is not None:
        yield from csv_reader.parse_rows(text)
        return
    for line, cell in enumerate(cells[: csv_reader.MAX_ROWS], 1):
        yield TableRow(line, cell, [cell])
    if len(cells) > csv_reader.MAX_ROWS:
        yield csv_reader.make_too_many_row(len(cells))


def _find_name_column(row: list[str]) -> int | None:
    """The index of the user column; None when the row is no heading. "Name" counts only as the first column."""
    headings = [cell.lower() for cell in row]
    for accepted in _HEADINGS[:-1]:
        if accepted in headings:
            return headings.index(accepted)
    return 0 if headings[:1] == [_HEADINGS[-1]] else None
