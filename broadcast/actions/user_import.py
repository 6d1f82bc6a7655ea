"""Import users from a table: valid rows are created, invalid ones are reported with their line and the reason.

The table is CSV (`domain.csv_reader`) with a header: username, name, roles, email (only the first is required; roles are
separated by spaces, commas or semicolons). Nobody gets a password here. An address counts as verified, by the word of
whoever imports it. Of a user who exists already only the address is taken, unless they have another one.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import NamedTuple

import gevent
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions.users import read_user_fields
from broadcast.base.cooperative import Yielder
from broadcast.base.errors import Invalid
from broadcast.domain.actor import Actor
from broadcast.domain.csv_reader import MAX_ROWS, TableRow, parse_rows
from broadcast.domain.email_address import normalize_address
from broadcast.domain.permissions import Permission
from broadcast.store import audit, email_addresses, users
from broadcast.store.transactions import write_transaction

COLUMNS = ("username", "name", "roles", "email")
_ROLE_SEPARATOR = re.compile(r"[\s,;]+")
_MAX_LISTED_ROLES = 5  # roles of one row named in the error
_MAX_MISSING_ROLES = 1000  # roles counted
_BATCH_SIZE = 100  # rows per transaction: it holds SQLite's only write lock for some milliseconds
_PAUSE_SECONDS = 0.0005


@dataclass(slots=True)
class ImportReport:
    """The result of an import. `made` counts users created, or that a dry run would create, `addressed` users who existed
    and get an address.

    `missing_roles` maps the unknown roles of skipped rows to the number of rows, the first thousand; `rejected_lines`
    are a table of the skipped rows.
    """

    made: int = 0
    addressed: int = 0
    bad: list[TableRow] = field(default_factory=list)
    missing_roles: dict[str, int] = field(default_factory=dict)
    rejected_lines: list[str] = field(default_factory=list)

    def reject_row(self, record: TableRow, problem: str) -> None:
        self.bad.append(TableRow(record.line, record.text[:80], [], problem))
        self.rejected_lines.append(record.text)

    def count_missing_roles(self, roles: Iterable[str]) -> None:
        for role in roles:
            if role in self.missing_roles or len(self.missing_roles) < _MAX_MISSING_ROLES:
                self.missing_roles[role] = self.missing_roles.get(role, 0) + 1


class _Row(NamedTuple):
    """A valid row: as written, and what it says. `address` is "" for none."""

    record: TableRow
    username: str
    name: str
    roles: set[str]
    address: str


def import_users(
    text: str, *, by: Actor, now: datetime, is_dry_run: bool = False, new_roles: Collection[str] = ()
) -> ImportReport:
    """Create a user for every valid row. Lets other greenlets run; a committed batch stays when a later one fails.

    A row with an unknown role is invalid, as a typo must not create a role, unless it is among `new_roles`: those named
    by valid rows are created too. Raises Invalid (not such a table).
    """
    by.require(Permission.PEOPLE)
    report, seen_usernames, known_roles = ImportReport(), set(), {*users.list_role_names(), *new_roles}
    rows = _read_rows(text, report, known_roles)
    while batch := list(islice(rows, _BATCH_SIZE)):
        new_rows, addresses = _sort_rows(batch, seen_usernames, report)
        if is_dry_run:
            report.made += len(new_rows)
            report.addressed += len(addresses)
        elif new_rows or addresses:
            _write_rows(new_rows, addresses, report, by, now)
        gevent.sleep(_PAUSE_SECONDS)
    report.bad.sort(key=lambda bad: bad.line)
    return report


def _read_rows(text: str, report: ImportReport, known_roles: set[str]) -> Iterator[_Row]:
    """Yield the valid rows; the others go into the report."""
    columns, yielder = None, Yielder()
    for record in parse_rows(text.replace("\0", "\ufffd"), max_rows=MAX_ROWS):
        yielder.maybe_yield()
        if columns is None and (any(record.cells) or record.problem):
            columns = _read_columns(record)
            report.rejected_lines.append(record.text)
        elif record.problem:
            report.reject_row(record, record.problem)
        elif any(record.cells) and (row := _read_row(record, columns, report, known_roles)):
            yield row
    if columns is None:
        _read_columns(TableRow(1, "", []))


def _read_columns(record: TableRow) -> list[str]:
    columns = [cell.lower() for cell in record.cells]
    while columns and not columns[-1]:
        columns.pop()  # an empty column beside the table
    if "username" not in columns or not set(columns) <= set(COLUMNS) or len(columns) != len(set(columns)):
        raise Invalid({"table": f"The first line must name the columns: {', '.join(COLUMNS)}."})
    return columns


def _read_row(record: TableRow, columns: list[str], report: ImportReport, known_roles: set[str]) -> _Row | None:
    cells = record.cells
    if any(cells[len(columns) :]):
        report.reject_row(record, f"There are {len(cells)} cells for {len(columns)} columns.")
        return None
    values = dict(zip(columns, cells, strict=False))
    roles = [role for role in _ROLE_SEPARATOR.split(values.get("roles", "")) if role]
    try:
        username, name, role_names = read_user_fields(values["username"], values.get("name"), roles)
        address = normalize_address(values["email"]) if values.get("email") else ""
    except (Invalid, ValueError) as problem:
        report.reject_row(record, str(problem))
        return None
    if unknown_roles := sorted(role_names - known_roles):
        report.count_missing_roles(unknown_roles)
        report.reject_row(record, f"There is no role {', '.join(unknown_roles[:_MAX_LISTED_ROLES])}.")
        return None
    return _Row(record, username, name, role_names, address)


def _sort_rows(batch: list[_Row], seen_usernames: set[str], report: ImportReport) -> tuple[list[_Row], dict[int, str]]:
    """The rows of new users, and the new addresses of users who exist, by user id; the other rows go into the report."""
    existing_ids = users.find_ids_by_username(row.username for row in batch)
    known_addresses = email_addresses.load_all(existing_ids.values())
    new_rows: list[_Row] = []
    addresses: dict[int, str] = {}
    for row in batch:
        user_id = existing_ids.get(row.username)
        if row.username in seen_usernames:
            report.reject_row(row.record, f"{row.username} appears in this table twice.")
        elif user_id is None:
            new_rows.append(row)
        elif not row.address:
            report.reject_row(row.record, f"There is a user called {row.username} already.")
        elif known_addresses.get(user_id) not in (None, row.address):
            report.reject_row(row.record, f"{row.username} has another address already. Change it on their page.")
        else:
            addresses[user_id] = row.address
        seen_usernames.add(row.username)
    return new_rows, addresses


def _write_rows(
    new_rows: list[_Row], addresses: dict[int, str], report: ImportReport, by: Actor, now: datetime
) -> None:
    try:
        with write_transaction() as session:
            if new_rows:
                addresses = addresses | _create_users(session, new_rows, by, now)
            email_addresses.set_many_verified(session, addresses, at=now)
            if len(addresses) > 0:
                audit.record(session, by, "people.addresses_imported", "people", None, now=now, ids=sorted(addresses))
    except IntegrityError:  # one of them was created meanwhile
        for row in new_rows:
            report.reject_row(row.record, "This row conflicted with another change. Import it again.")
        return
    report.made += len(new_rows)
    report.addressed += len(addresses) - sum(bool(row.address) for row in new_rows)


def _create_users(session: Session, new_rows: list[_Row], by: Actor, now: datetime) -> dict[int, str]:
    """Create the users of these rows; return the addresses of those that have one, by user id."""
    users.bump_membership_version(session)
    for name in users.add_missing_roles(session, {role for row in new_rows for role in row.roles}):
        audit.record(session, by, "role.created", "role", name, now=now)
    ids = users.insert_users(session, [(row.username, row.name, row.roles) for row in new_rows], at=now)
    usernames = [row.username for row in new_rows]
    audit.record(session, by, "people.imported", "people", None, now=now, usernames=usernames)
    return {ids[row.username]: row.address for row in new_rows if row.address}
