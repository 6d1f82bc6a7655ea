"""Runs migrations on the application's own engine (`flask --app app db upgrade`). They add and change; they never drop data.

Each migration names in `oldest_code` the newest migration that code must have to work on the schema it makes: its own if it
takes away or changes what older code uses (it contracts), otherwise that of the migration before it (it expands). The database
keeps it for code that does not have the migration yet: see `broadcast.store.schema`.
"""

import random
import time
import zlib

import structlog
from alembic import context
from flask import current_app
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from broadcast.store import schema

_log = structlog.get_logger(__name__)
_PATIENCE = "500ms"  # below PostgreSQL's deadlock_timeout: it is the migration that gives way, and nobody waits longer
_IN_THE_WAY = ("55P03", "40P01")  # lock_not_available, deadlock_detected
_TRIES, _PAUSE_SECONDS = 120, (0.2, 1.0)
_LOCK = zlib.crc32(b"migrations")  # of the advisory locks of this database, named as `store.leader_lock` names its own
extension = current_app.extensions["migrate"]


def take_turns(connection: Connection) -> None:
    """Let no other node migrate this database until this transaction ends: of nodes that are upgraded together one does the
    work, and the others find it done. Then be patient for a moment only, as nodes of the version before go on writing.
    """
    set_patience = text("SELECT set_config('lock_timeout', :value, true)")
    connection.execute(set_patience, {"value": "0"})
    connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK})
    connection.execute(set_patience, {"value": _PATIENCE})


def connect() -> Connection:
    try:
        return extension.db.engine.connect()
    except SQLAlchemyError as problem:
        if (sentence := schema.explain_error(problem)) is None:
            raise
        raise SystemExit(sentence) from None


def migrate() -> None:
    """All migrations in one transaction where the database can, or none."""
    with connect() as connection:
        if problem := schema.find_encoding_problem():
            raise SystemExit(problem)
        context.configure(connection=connection, target_metadata=extension.db.metadata, **extension.configure_args)
        with context.begin_transaction():
            if connection.dialect.name == "postgresql":
                take_turns(connection)
            context.run_migrations()
            schema.save_oldest_code(connection, context.script)
        connection.commit()  # on SQLite each migration ends its own transaction, and what follows them is in another


def run() -> None:
    """Migrate; while those who write hold a lock that is needed, undo it all, let them pass and begin anew."""
    for left in reversed(range(_TRIES)):
        try:
            migrate()
            break
        except DBAPIError as problem:
            if getattr(problem.orig, "sqlstate", None) not in _IN_THE_WAY or not left:
                raise
            _log.info("migrations.give_way", problem=str(problem.orig).strip(), tries_left=left)
            time.sleep(random.uniform(*_PAUSE_SECONDS))


if context.is_offline_mode():
    raise SystemExit("Migrations need a database: run them without --sql.")
run()
