"""Every row of every table as plain values, and back: moves data between databases, SQLite or PostgreSQL.

Sessions and setup codes are left out: users sign in again after a move. So are browsers that get push messages, which
register again then, and the scheduler's last run. Rows that the migrations write exist already. Derived data (search
indexes) is derived again by the database.
"""

import base64
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby, islice
from typing import Any

from sqlalchemy import LargeBinary, Table, delete, func, insert, select, text
from sqlalchemy.orm import Session

from broadcast.store.database import db
from broadcast.store.models import (
    ProviderLogoutRow,
    PushSubscription,
    SchedulerState,
    SchemaSupport,
    SetupCode,
    User,
    UserSession,
)
from broadcast.store.types import UtcDateTime

_BATCH_ROWS = 500
_SKIPPED_TABLES = {
    table.__tablename__
    for table in (UserSession, PushSubscription, SetupCode, ProviderLogoutRow, SchemaSupport, SchedulerState)
}
# a new database has these already
_SINGLE_ROW_TABLES = {"log_head", "audit_head", "people_version", "system_identity", "channel_settings"} | {
    "escalation_policies",
    "escalation_progress",
    "email_pace",
}


def export_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (table, row), referenced tables first. One read transaction: all of it is consistent."""
    for table in _list_tables():
        query = select(table).order_by(*table.primary_key).execution_options(yield_per=_BATCH_ROWS)
        for row in db.session.execute(query).mappings():
            yield table.name, {name: _to_plain_value(value) for name, value in row.items()}


def is_empty(session: Session) -> bool:
    return not session.scalar(select(func.count()).select_from(User))


def insert_rows(session: Session, named_rows: Iterable[tuple[str, dict[str, Any]]]) -> int:
    """Insert rows in the order of `export_rows`; return how many. Raises ValueError for an unknown table or column."""
    tables, count = {table.name: table for table in _list_tables()}, 0
    for name, group in groupby(named_rows, key=lambda item: item[0]):
        if name not in tables:
            raise ValueError(f"There is no table {name} here.")
        table = tables[name]
        if name in _SINGLE_ROW_TABLES or name == "roles":
            session.execute(delete(table))
        while batch := [_to_typed_row(table, row) for _, row in islice(group, _BATCH_ROWS)]:
            session.execute(insert(table), batch)
            count += len(batch)
    _advance_sequences(session)
    return count


def _list_tables() -> list[Table]:
    return [table for table in db.metadata.sorted_tables if table.name not in _SKIPPED_TABLES]


def _to_plain_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else value


def _to_typed_row(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    if unknown := row.keys() - table.columns.keys():
        raise ValueError(f"{table.name} has no {', '.join(sorted(unknown))} here.")
    return {name: _to_typed_value(table.columns[name].type, value) for name, value in row.items()}


def _to_typed_value(type_: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(type_, LargeBinary):
        return base64.b64decode(value)
    return datetime.fromisoformat(value) if isinstance(type_, UtcDateTime) else value


def _advance_sequences(session: Session) -> None:
    """PostgreSQL counts ids separately from the table: continue after the highest imported one."""
    if session.get_bind().dialect.name != "postgresql":
        return
    for table in _list_tables():
        key = table.autoincrement_column
        if key is not None:
            statement = text("SELECT setval(pg_get_serial_sequence(:table, :column), :next, false)")
            highest = session.scalar(select(func.max(key))) or 0
            session.execute(statement, {"table": table.name, "column": key.name, "next": highest + 1})
