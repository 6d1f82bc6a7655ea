"""Rows of a batch, by the driver itself.

SQLAlchemy writes the statement and says how values are written; that is kept. What it does around each row of a large insert
was a third of all that an event from outside cost. SQLite gets many rows in one statement, and a thread for it: it works inside
C all the time, beside which the worker does something else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

from sqlalchemy import Dialect, Table, func, insert, select
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from broadcast.base.cooperative import Breath
from broadcast.store.database import IN_A_THREAD, Moment

Row = Mapping[str, Any]
_MOMENTS = 16  # remembered as a driver takes them, of each column
STATEMENT_ROWS = (250, 50)  # written by one statement of SQLite: 12 ms in the thread, or 2


@dataclass(frozen=True, slots=True)
class _Form:
    """The insert as one driver takes it, what turns a row into its parameters, and the insert of many rows by their number."""

    text: str
    write: Callable[[Row], Any]
    of_many: Mapping[int, str]


_forms: dict[tuple[str, Table, tuple[str, ...]], _Form] = {}


def insert_many(session: Session, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows that all name the same columns. Defaults made by Python are not: name every column that has one.

    Raises what the database raises. Nothing is flushed before. Lets other greenlets run when the rows are many.
    """
    if not rows:
        return
    connection = session.connection()
    form = _form(connection.dialect, table, tuple(rows[0]))
    written, breath = [], Breath()
    for row in rows:
        written.append(form.write(row))
        breath.take()
    for size, text in form.of_many.items():
        while len(written) >= size:
            connection.exec_driver_sql(text, tuple(chain(*written[:size])), execution_options=IN_A_THREAD)
            written = written[size:]
    if written:
        connection.exec_driver_sql(form.text, written)


def new_ids(session: Session, table: Table, count: int) -> list[int]:
    """Take `count` ids for rows of a table whose `id` the database gives out, ascending. In a write transaction."""
    if session.get_bind().dialect.name == "sqlite":  # nobody else writes until the commit
        newest = session.scalar(select(func.coalesce(func.max(table.c.id), 0)))
        return list(range(newest + 1, newest + 1 + count))
    sequence = func.pg_get_serial_sequence(table.name, "id")
    numbers = select(func.nextval(sequence)).select_from(func.generate_series(1, count))
    return sorted(session.scalars(numbers))


def _form(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> _Form:
    key = (dialect.name, table, columns)
    if key not in _forms:
        _forms[key] = _formed(dialect, table, columns)
    return _forms[key]


def _writer(type: TypeEngine, dialect: Dialect) -> Callable[[Any], Any] | None:
    process = type.dialect_impl(dialect).bind_processor(dialect)
    return lru_cache(_MOMENTS)(process) if isinstance(type, Moment) else process  # rows of a batch have few, or None


def _formed(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> _Form:
    compiled = insert(table).compile(dialect=dialect, column_keys=list(columns))
    names = compiled.positiontup or list(compiled.params)
    if strangers := set(names) ^ set(columns):
        raise ValueError(f"{table.name}: a row must name exactly the columns to write; see {sorted(strangers)}")
    writers = [(n, _writer(table.c[name].type, dialect)) for n, name in enumerate(names)]
    writers = [(n, writer) for n, writer in writers if writer]

    def write(row: Row) -> Any:
        values = [row[name] for name in names]
        for n, writer in writers:
            values[n] = writer(values[n])
        return tuple(values) if compiled.positional else dict(zip(names, values, strict=True))

    text = str(compiled)
    head, _, values = text.partition(" VALUES ")
    sizes = STATEMENT_ROWS if dialect.name == "sqlite" else ()
    return _Form(text, write, {size: f"{head} VALUES {', '.join([values] * size)}" for size in sizes})
