"""The database object, its declarative base, and what depends on the dialect. Read with `db.session`; write inside
`transactions.write_transaction()`.
"""

from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from typing import Any

from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session as FlaskSession
from sqlalchemy import BigInteger, CheckConstraint, Integer, MetaData, Row, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, declared_attr, mapped_column, registry

from broadcast.base.cooperative import split_into_chunks
from broadcast.store.types import UtcDateTime


class Base(DeclarativeBase):
    """Constraints have names, so that a migration can change them on both databases."""

    registry = registry(
        metadata=MetaData(
            naming_convention={
                "ix": "ix_%(table_name)s_%(column_0_N_name)s",
                "uq": "uq_%(table_name)s_%(column_0_N_name)s",
                "ck": "ck_%(table_name)s_%(constraint_name)s",
                "fk": "fk_%(table_name)s_%(column_0_name)s",
                "pk": "pk_%(table_name)s",
            }
        ),
        # SQLite assigns row ids only for INTEGER; PostgreSQL would run out of 32 bits
        type_annotation_map={int: BigInteger().with_variant(Integer, "sqlite"), datetime: UtcDateTime},
    )


class SingleRow:
    """A table with one row at most."""

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> tuple[CheckConstraint, ...]:
        return (CheckConstraint("id = 1", name="single"),)


class DisconnectSafeSession(FlaskSession):
    """Also closes when the database is lost: the response is complete by then and would become a 500."""

    def close(self) -> None:
        try:
            super().close()
        except DBAPIError as problem:
            if not problem.connection_invalidated:
                raise
            self.invalidate()  # nothing to roll back, and no connection for the pool


db = SQLAlchemy(model_class=Base, session_options={"class_": DisconnectSafeSession})
migrate = Migrate(db=db, directory="migrations", render_as_batch=True, compare_type=True)

# How to lock a row that will change, for `with_for_update`: others may still reference it. The full lock would wait for
# every receipt being written that references the row, and its writer could wait for us: a deadlock.
ROW_LOCK = {"key_share": True}
MAX_IN_VALUES = 500  # values in one IN list; SQLite takes 32,766 in a statement


def build_insert(session: Session, table: Any) -> Any:
    """An INSERT into a table or model that can have ON CONFLICT, which is a part of each dialect."""
    return get_insert(session)(table)


def get_insert(session: Session) -> Callable[[Any], Any]:
    """The function of the dialect that builds it: the key of a statement that is built once per dialect."""
    return (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert


def execute_in_chunks(session: Session, statement: Any, column: Any, values: Collection[Any]) -> Iterator[Row]:
    """Execute a statement for these values of a column, which may be too many for one; yield the rows of all.

    Lets other greenlets run between chunks.
    """
    for chunk in split_into_chunks(sorted(values), MAX_IN_VALUES):
        yield from session.execute(statement.where(column.in_(chunk)))


def get_current_time() -> datetime:
    """The time of the clock that all workers share: the database server's, or this machine's for SQLite."""
    if db.engine.dialect.name == "sqlite":
        return datetime.now(UTC)
    return db.session.scalar(select(func.clock_timestamp())).astimezone(UTC)
