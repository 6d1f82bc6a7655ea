"""Whether this version can work with this database: it responds, accepts writes, and has the expected schema.

During a rolling upgrade older code meets a newer schema. It may go on serving while the migrations it does not know
only expanded the schema; the database records that (`SchemaSupport`), as the code cannot know.
"""

from contextlib import closing
from functools import cache
from typing import NamedTuple

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import current_app
from sqlalchemy import Connection, inspect, select, text, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from broadcast.store.availability import describe_failure, is_unavailable
from broadcast.store.database import db
from broadcast.store.models import SchemaSupport

UPGRADE_COMMAND = "flask --app app db upgrade"
_REQUIRED_ENCODING = "UTF8"
_SQLITE_BUSY_CODE = 5
_WRITE_CHECK_SQL = "SELECT current_setting('transaction_read_only') = 'off', has_table_privilege('log_head', 'UPDATE')"


class SchemaCompatibility(NamedTuple):
    """`problem` keeps this version from serving, `notice` does not. Each is a sentence, or None."""

    problem: str | None = None
    notice: str | None = None


def find_database_problem(*, should_include_reason: bool = False) -> str | None:
    """Why the database cannot be read or written now; None when it can. Waits for no lock and writes nothing.

    `should_include_reason` adds the driver's message: hosts, users and paths, for operators only.
    """
    try:
        if db.engine.dialect.name == "sqlite":
            return _find_sqlite_problem(should_include_reason)
        db.session.rollback()  # so that the check runs in a new transaction
        may_write, has_privilege = db.session.execute(text(_WRITE_CHECK_SQL)).one()
    except SQLAlchemyError as problem:
        db.session.rollback()
        return _describe_error(problem, should_include_reason)
    if not may_write:
        return (
            "The database is read-only: DATABASE_URL leads to a standby, or the server was made read-only. "
            "Name the primary, or all servers, in DATABASE_URL."
        )
    if not has_privilege:
        return (
            "The user in DATABASE_URL may not change the tables that the migrations made. Run with the user that ran them, "
            "or grant it the rights."
        )
    return None


def check_compatibility() -> SchemaCompatibility:
    """Whether the schema is the one this version expects. Raises SQLAlchemyError while the database is down."""
    applied, known = list_applied_migrations(), _list_known_migrations()
    if not applied:
        return SchemaCompatibility(f"The database has no tables yet. Run `{UPGRADE_COMMAND}`.")
    unknown = [name for name in applied if name not in known]
    if not unknown:
        missing = list_missing_migrations()
        message = f"The database is older than this version: {', '.join(missing)} not applied. Run `{UPGRADE_COMMAND}`."
        return SchemaCompatibility(message if missing else None)
    newer_message = f"The database is newer than this version (it is at {', '.join(unknown)})."
    if _get_oldest_code() in known:
        return SchemaCompatibility(notice=f"{newer_message} This version still works with it; upgrade this node soon.")
    return SchemaCompatibility(
        f"{newer_message} This version cannot work with it: upgrade this node, or restore the database from before."
    )


def explain_error(problem: SQLAlchemyError) -> str | None:
    """What an operator can do about a database error; None for one that only developers can fix."""
    if not isinstance(problem, DBAPIError | PoolTimeout):
        return None
    if is_unavailable(problem):
        return _describe_error(problem, should_include_reason=True)
    return _find_schema_problem()


def list_applied_migrations() -> list[str]:
    """The newest migrations applied to this database; empty when it has none."""
    with db.engine.connect() as connection:
        return sorted(MigrationContext.configure(connection).get_current_heads())


def list_missing_migrations() -> list[str]:
    """Migrations of this version that are not applied, oldest first. Empty on the schema of a newer version."""
    known, applied = _list_known_migrations(), list_applied_migrations()
    if any(name not in known for name in applied):
        return []
    return list(known[max(map(known.index, applied), default=-1) + 1 :])


def find_encoding_problem() -> str | None:
    """Why this database cannot store every text: LATIN1 rejects most of Unicode, SQL_ASCII accepts invalid text."""
    if db.engine.dialect.name != "postgresql":
        return None
    with db.engine.connect() as connection:
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding == _REQUIRED_ENCODING:
        return None
    return f"The database's encoding is {encoding}. Make one with `createdb -E UTF8 -T template0 …` instead."


def find_corruption() -> str | None:
    """The first corruption that SQLite finds in its file, or None. Reads all of it, and blocks the process."""
    if db.engine.dialect.name != "sqlite":
        return None
    with closing(db.engine.raw_connection()) as connection:
        try:
            check_result = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except db.engine.dialect.loaded_dbapi.DatabaseError as problem:
            check_result = str(problem)
    return None if check_result == "ok" else check_result


def save_oldest_code(connection: Connection, scripts: ScriptDirectory) -> None:
    """After migrating, record how old code may be that works with this schema."""
    heads = MigrationContext.configure(connection).get_current_heads()
    if heads and inspect(connection).has_table(SchemaSupport.__tablename__):
        connection.execute(update(SchemaSupport).values(oldest_code=scripts.get_revision(heads[0]).module.oldest_code))


def _get_oldest_code() -> str | None:
    try:
        return db.session.scalar(select(SchemaSupport.oldest_code))
    except DBAPIError:  # a version so new that the table is gone
        db.session.rollback()
        return None


def _find_sqlite_problem(should_include_reason: bool) -> str | None:
    """Whether a write could begin: its lock is acquired and released. If another writer has it, writing works."""
    try:
        with closing(db.engine.raw_connection()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except db.engine.dialect.loaded_dbapi.Error as problem:
        if getattr(problem, "sqlite_errorcode", 0) & 0xFF != _SQLITE_BUSY_CODE:
            return _describe_failure(problem, should_include_reason)
    return None


def _describe_failure(problem: BaseException, should_include_reason: bool) -> str:
    failure = describe_failure(problem, db.engine.url)
    return failure.operator if should_include_reason else failure.public


def _describe_error(problem: SQLAlchemyError, should_include_reason: bool) -> str:
    if isinstance(problem, PoolTimeout):
        return "All connections of DATABASE_POOL_SIZE are in use."
    if isinstance(problem, DBAPIError) and not is_unavailable(problem):
        reason = f": {' '.join(str(problem.orig).split()).rstrip('.')}" if should_include_reason else ""
        return _find_schema_problem() or f"The tables of this version cannot be read{reason}."
    return _describe_failure(getattr(problem, "orig", None) or problem, should_include_reason)


def _find_schema_problem() -> str | None:
    """What is wrong with the schema, after a statement failed that should work."""
    try:
        return check_compatibility().problem
    except SQLAlchemyError:
        return None


@cache
def _list_known_migrations() -> tuple[str, ...]:
    """All migrations of this version, oldest first. Cached: it imports every migration."""
    directory = current_app.extensions["migrate"].directory
    return tuple(script.revision for script in ScriptDirectory(directory).walk_revisions())[::-1]
