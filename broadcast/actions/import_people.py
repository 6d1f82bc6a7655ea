"""People from a table: the good rows are made, the bad ones are told with their line and the reason.

The table is CSV with a first line that names its columns: username, name, roles (the last two may be missing; roles are
separated by spaces or semicolons). Nobody gets a password here.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

import gevent
from sqlalchemy.exc import IntegrityError

from broadcast.actions import audit
from broadcast.actions.people import read_person
from broadcast.domain.actor import Actor
from broadcast.domain.permissions import Permission
from broadcast.errors import Invalid
from broadcast.store import people
from broadcast.store.database import writing

MOST_ROWS = 50_000
COLUMNS = ("username", "name", "roles")
_BATCH = 100  # rows of one transaction: it holds SQLite's only write lock for some milliseconds
_PAUSE_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class BadRow:
    line: int
    text: str
    problem: str


@dataclass(slots=True)
class Report:
    """What became of a table. `made` counts people who were made, or would be when only checking."""

    made: int = 0
    bad: list[BadRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    text: str
    person: tuple[str, str, set[str]]


def import_people(text: str, *, by: Actor, now: datetime, only_check: bool = False) -> Report:
    """Make a person of every good row. Lets other greenlets run; a batch that is committed stays when a later one fails.

    Roles that do not exist are bad rows: a slip of the pen must not make a role.
    Raises Forbidden, Invalid (no such table), Busy.
    """
    by.require(Permission.PEOPLE)
    report, taken, roles = Report(), set(), set(people.role_names())
    rows = _rows(text, report, roles)
    while batch := list(islice(rows, _BATCH)):
        fresh = _not_taken(batch, taken, report)
        if fresh and not only_check:
            _make(fresh, report, by, now)
        else:
            report.made += len(fresh)
        gevent.sleep(_PAUSE_SECONDS)
    report.bad.sort(key=lambda bad: bad.line)
    return report


def _rows(text: str, report: Report, known_roles: set[str]) -> Iterator[_Row]:
    """Rows that could be people; the others go into the report."""
    reader = csv.reader(text.lstrip("\ufeff").splitlines(), strict=True)
    columns = _columns(reader)
    for number in range(1, MOST_ROWS + 2):
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            report.bad.append(BadRow(reader.line_num, "", f"This is no row of a table: {problem}."))
            continue
        if number > MOST_ROWS:
            report.bad.append(
                BadRow(reader.line_num, "", f"At most {MOST_ROWS:,} rows are read; the rest was left out.")
            )
            return
        if any(cell.strip() for cell in cells):
            row = _row(cells, columns, reader.line_num, report, known_roles)
            if row:
                yield row
        if number % _BATCH == 0:
            gevent.sleep(_PAUSE_SECONDS)


def _columns(reader: Iterator[list[str]]) -> list[str]:
    try:
        columns = [cell.strip().lower() for cell in next(reader, [])]
    except csv.Error:
        columns = []
    if "username" not in columns or not set(columns) <= set(COLUMNS) or len(columns) != len(set(columns)):
        raise Invalid({"table": f"The first line must name the columns: {', '.join(COLUMNS)}."})
    return columns


def _row(cells: list[str], columns: list[str], line: int, report: Report, known_roles: set[str]) -> _Row | None:
    text = ",".join(cells)[:80]
    if len(cells) > len(columns):
        report.bad.append(BadRow(line, text, f"There are {len(cells)} cells for {len(columns)} columns."))
        return None
    given = dict(zip(columns, cells, strict=False))
    try:
        person = read_person(given["username"], given.get("name"), given.get("roles", "").replace(";", " ").split())
    except Invalid as invalid:
        report.bad.append(BadRow(line, text, str(invalid)))
        return None
    if unknown := sorted(person[2] - known_roles):
        report.bad.append(BadRow(line, text, f"There is no role {', '.join(unknown)}."))
        return None
    return _Row(line, text, person)


def _not_taken(batch: list[_Row], taken: set[str], report: Report) -> list[_Row]:
    known = people.known_usernames(row.person[0] for row in batch)
    fresh = []
    for row in batch:
        username = row.person[0]
        if username in known:
            report.bad.append(BadRow(row.line, row.text, f"There is a person called {username} already."))
        elif username in taken:
            report.bad.append(BadRow(row.line, row.text, f"{username} stands in this table twice."))
        else:
            taken.add(username)
            fresh.append(row)
    return fresh


def _make(fresh: list[_Row], report: Report, by: Actor, now: datetime) -> None:
    try:
        with writing() as session:
            people.changed(session)
            people.insert_many(session, [row.person for row in fresh], at=now)
            usernames = [row.person[0] for row in fresh]
            audit.record(session, by, "people.imported", "people", None, now=now, usernames=usernames)
    except IntegrityError:  # somebody made one of them meanwhile
        report.bad += [BadRow(row.line, row.text, "This row crossed with another change. Repeat it.") for row in fresh]
        return
    report.made += len(fresh)
