"""People from a table: the good rows are made, the bad ones are told with their line and the reason.

The table is CSV (`domain.spreadsheet`) with a first line that names its columns: username, name, roles (the last two may be
missing; roles are separated by spaces, commas or semicolons). Nobody gets a password here.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

import gevent
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import audit
from broadcast.actions.users import read_person
from broadcast.base.cooperative import Breath
from broadcast.base.errors import Invalid
from broadcast.domain import csv_reader
from broadcast.domain.actor import Actor
from broadcast.domain.csv_reader import Record
from broadcast.domain.permissions import Permission
from broadcast.store import users
from broadcast.store.database import writing

MOST_ROWS = csv_reader.MAX_ROWS
COLUMNS = ("username", "name", "roles")
_BETWEEN_ROLES = re.compile(r"[\s,;]+")
_NAMED = 5  # roles of one row, told by name
_MOST_MISSING = 1000  # roles counted
_BATCH = 100  # rows of one transaction: it holds SQLite's only write lock for some milliseconds
_PAUSE_SECONDS = 0.0005


@dataclass(frozen=True, slots=True)
class BadRow:
    line: int
    text: str
    problem: str


@dataclass(slots=True)
class Report:
    """What became of a table. `made` counts people who were made, or would be when only checking.

    `missing_roles` are those that rows were left out for, with how many rows each, the first thousand; `rest` is a table of the
    rows left out.
    """

    made: int = 0
    bad: list[BadRow] = field(default_factory=list)
    missing_roles: dict[str, int] = field(default_factory=dict)
    _rest: list[str] = field(default_factory=list)

    @property
    def rest(self) -> str:
        return "\n".join(self._rest)

    def keep(self, record: Record) -> None:
        self._rest.append(record.text)

    def refuse(self, record: Record, problem: str) -> None:
        self.bad.append(BadRow(record.line, record.text[:80], problem))
        self.keep(record)

    def note_missing(self, roles: Iterable[str]) -> None:
        for role in roles:
            if role in self.missing_roles or len(self.missing_roles) < _MOST_MISSING:
                self.missing_roles[role] = self.missing_roles.get(role, 0) + 1


@dataclass(frozen=True, slots=True)
class _Row:
    record: Record
    person: tuple[str, str, set[str]]


def import_people(
    text: str, *, by: Actor, now: datetime, only_check: bool = False, new_roles: Collection[str] = ()
) -> Report:
    """Make a person of every good row. Lets other greenlets run; a batch that is committed stays when a later one fails.

    Roles that do not exist are bad rows, as a slip of the pen must not make a role, unless they are among `new_roles`: those
    that good rows name are made with them. Raises Forbidden, Invalid (no such table), Busy.
    """
    by.require(Permission.PEOPLE)
    report, taken, roles = Report(), set(), {*users.role_names(), *new_roles}
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
    columns, breath = None, Breath()
    for record in csv_reader.records(text.replace("\0", "\ufffd"), most=MOST_ROWS):
        breath.take()
        if columns is None and (any(record.cells) or record.problem):
            columns = _columns(record)
            report.keep(record)
        elif record.problem:
            report.refuse(record, record.problem)
        elif any(record.cells) and (row := _row(record, columns, report, known_roles)):
            yield row
    if columns is None:
        _columns(Record(1, "", []))


def _columns(record: Record) -> list[str]:
    columns = [cell.lower() for cell in record.cells]
    while columns and not columns[-1]:
        columns.pop()  # an empty column beside the table
    if "username" not in columns or not set(columns) <= set(COLUMNS) or len(columns) != len(set(columns)):
        raise Invalid({"table": f"The first line must name the columns: {', '.join(COLUMNS)}."})
    return columns


def _row(record: Record, columns: list[str], report: Report, known_roles: set[str]) -> _Row | None:
    cells = record.cells
    if any(cells[len(columns) :]):
        report.refuse(record, f"There are {len(cells)} cells for {len(columns)} columns.")
        return None
    given = dict(zip(columns, cells, strict=False))
    roles = [role for role in _BETWEEN_ROLES.split(given.get("roles", "")) if role]
    try:
        person = read_person(given["username"], given.get("name"), roles)
    except Invalid as invalid:
        report.refuse(record, str(invalid))
        return None
    if unknown := sorted(person[2] - known_roles):
        report.note_missing(unknown)
        report.refuse(record, f"There is no role {', '.join(unknown[:_NAMED])}.")
        return None
    return _Row(record, person)


def _not_taken(batch: list[_Row], taken: set[str], report: Report) -> list[_Row]:
    known = users.known_usernames(row.person[0] for row in batch)
    fresh = []
    for row in batch:
        username = row.person[0]
        if username in known:
            report.refuse(row.record, f"There is a person called {username} already.")
        elif username in taken:
            report.refuse(row.record, f"{username} stands in this table twice.")
        else:
            taken.add(username)
            fresh.append(row)
    return fresh


def _make(fresh: list[_Row], report: Report, by: Actor, now: datetime) -> None:
    try:
        with writing() as session:
            users.changed(session)
            _make_roles(session, {role for row in fresh for role in row.person[2]}, by, now)
            users.insert_many(session, [row.person for row in fresh], at=now)
            usernames = [row.person[0] for row in fresh]
            audit.record(session, by, "people.imported", "people", None, now=now, usernames=usernames)
    except IntegrityError:  # somebody made one of them meanwhile
        for row in fresh:
            report.refuse(row.record, "This row crossed with another change. Repeat it.")
        return
    report.made += len(fresh)


def _make_roles(session: Session, names: set[str], by: Actor, now: datetime) -> None:
    """Those that do not exist; a batch that names none but known ones asks one question."""
    for name in users.add_roles(session, names):
        audit.record(session, by, "role.created", "role", name, now=now)
