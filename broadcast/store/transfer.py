"""Every row of every table as plain values, and back: the way from one database to another, SQLite or PostgreSQL.

Sessions and setup codes stay behind: whoever moves house signs in anew. So does when the scheduler ran there. What the
migrations wrote is there already. What a database derives from its rows (search indexes) it derives again.
"""

import base64
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby, islice
from typing import Any

from sqlalchemy import LargeBinary, Table, delete, func, insert, select, text
from sqlalchemy.orm import Session

from broadcast.store.database import Moment, db
from broadcast.store.models import ProviderLogoutRow, SchemaSupport, User, UserSession
from broadcast.store.models.activity import SchedulerState
from broadcast.store.models.setup import SetupCode

_BATCH = 500
_LEFT_BEHIND = {
    table.__tablename__ for table in (UserSession, SetupCode, ProviderLogoutRow, SchemaSupport, SchedulerState)
}
_ONE_ROW = {"log_head", "audit_head", "people_version", "system_identity"}  # a new database has these already


def rows() -> Iterator[tuple[str, dict[str, Any]]]:
    """Table and row, those that others refer to first. One reading transaction: all of it is of the same moment."""
    for table in _tables():
        for row in db.session.execute(select(table).order_by(*table.primary_key).execution_options(yield_per=_BATCH)):
            yield table.name, {column.name: _plain(value) for column, value in zip(table.columns, row, strict=True)}


def is_empty(session: Session) -> bool:
    return not session.scalar(select(func.count()).select_from(User))


def insert_rows(session: Session, given: Iterable[tuple[str, dict[str, Any]]]) -> int:
    """Insert rows in the order of `rows`; return how many. Raises ValueError for a table or column that is not known."""
    tables, count = {table.name: table for table in _tables()}, 0
    for name, group in groupby(given, key=lambda item: item[0]):
        if name not in tables:
            raise ValueError(f"There is no table {name} here.")
        table = tables[name]
        if name in _ONE_ROW or name == "roles":
            session.execute(delete(table))
        while batch := [_typed(table, row) for _, row in islice(group, _BATCH)]:
            session.execute(insert(table), batch)
            count += len(batch)
    _continue_numbering(session)
    return count


def _tables() -> list[Table]:
    return [table for table in db.metadata.sorted_tables if table.name not in _LEFT_BEHIND]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else value


def _typed(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    if unknown := row.keys() - table.columns.keys():
        raise ValueError(f"{table.name} has no {', '.join(sorted(unknown))} here.")
    return {name: _value(table.columns[name].type, value) for name, value in row.items()}


def _value(type_: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(type_, LargeBinary):
        return base64.b64decode(value)
    return datetime.fromisoformat(value) if isinstance(type_, Moment) else value


def _continue_numbering(session: Session) -> None:
    """PostgreSQL counts ids beside the table: go on after the highest that came in."""
    if session.get_bind().dialect.name != "postgresql":
        return
    for table in _tables():
        [*key] = table.primary_key
        if (
            len(key) == 1
            and key[0].autoincrement is not False
            and not key[0].foreign_keys
            and key[0].type.python_type is int
        ):
            words = {"table": table.name, "column": key[0].name}
            if session.scalar(text("SELECT pg_get_serial_sequence(:table, :column)"), words):
                highest = session.scalar(select(func.max(key[0])))
                statement = text("SELECT setval(pg_get_serial_sequence(:table, :column), :next, false)")
                session.execute(statement, words | {"next": (highest or 0) + 1})
