"""Bulk inserts directly through the driver.

SQLAlchemy's compiled statement and bind processors are cached. What it does around each row of a large insert was a
third of the cost of an inbound event. SQLite gets many rows per statement, in a thread: it stays inside C meanwhile,
and the worker continues.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

from sqlalchemy import Dialect, Table, func, insert, select
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from broadcast.base.cooperative import Yielder
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.types import UtcDateTime

Row = Mapping[str, Any]
_CACHED_STATEMENTS = 64  # more than there are tables for one engine
_CACHED_TIMES = 16  # cached driver values of times, per column
STATEMENT_ROWS = (250, 50)  # rows per SQLite statement: 12 ms in the thread, or 2


@dataclass(frozen=True, slots=True)
class _CompiledInsert:
    """The insert in the driver's form, the conversion of a row to parameters, and multi-row inserts by row count."""

    sql: str
    build_parameters: Callable[[Row], Any]
    sql_by_row_count: Mapping[int, str]


def insert_many(session: Session, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows that all have the same columns. Python-side defaults are not applied: include all columns with one.

    Database errors propagate. Nothing is flushed before. Lets other greenlets run for long lists.
    """
    if not rows:
        return
    connection = session.connection()
    compiled = _compile_insert(connection.dialect, table, tuple(rows[0]))
    parameter_rows, yielder = [], Yielder()
    for row in rows:
        parameter_rows.append(compiled.build_parameters(row))
        yielder.maybe_yield()
    for size, sql in compiled.sql_by_row_count.items():
        while len(parameter_rows) >= size:
            connection.exec_driver_sql(sql, tuple(chain(*parameter_rows[:size])), execution_options=RUN_IN_THREAD)
            parameter_rows = parameter_rows[size:]
    if parameter_rows:
        connection.exec_driver_sql(compiled.sql, parameter_rows)


def reserve_ids(session: Session, table: Table, count: int) -> list[int]:
    """Reserve `count` ascending ids of a table whose `id` the database assigns. Call it in a write transaction."""
    if session.get_bind().dialect.name == "sqlite":  # nobody else writes until the commit
        highest_id = session.scalar(select(func.coalesce(func.max(table.c.id), 0)))
        return list(range(highest_id + 1, highest_id + 1 + count))
    sequence = func.pg_get_serial_sequence(table.name, "id")
    id_query = select(func.nextval(sequence)).select_from(func.generate_series(1, count))
    return sorted(session.scalars(id_query))


def _get_bind_processor(column_type: TypeEngine, dialect: Dialect) -> Callable[[Any], Any] | None:
    processor = column_type.dialect_impl(dialect).bind_processor(dialect)
    # the rows of a batch have few distinct times, or None
    return lru_cache(_CACHED_TIMES)(processor) if isinstance(column_type, UtcDateTime) else processor


@lru_cache(_CACHED_STATEMENTS)
def _compile_insert(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> _CompiledInsert:
    compiled = insert(table).compile(dialect=dialect, column_keys=list(columns))
    names = compiled.positiontup or list(compiled.params)
    if mismatched := set(names) ^ set(columns):
        raise ValueError(f"{table.name}: a row must name exactly the columns to write; see {sorted(mismatched)}")
    processors = [(index, _get_bind_processor(table.c[name].type, dialect)) for index, name in enumerate(names)]
    processors = [(n, processor) for n, processor in processors if processor]

    def build_parameters(row: Row) -> Any:
        values = [row[name] for name in names]
        for index, process in processors:
            values[index] = process(values[index])
        return tuple(values) if compiled.positional else dict(zip(names, values, strict=True))

    sql = str(compiled)
    head, _, values = sql.partition(" VALUES ")
    row_counts = STATEMENT_ROWS if dialect.name == "sqlite" else ()
    return _CompiledInsert(
        sql, build_parameters, {size: f"{head} VALUES {', '.join([values] * size)}" for size in row_counts}
    )
