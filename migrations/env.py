"""Runs migrations on the application's own engine (`flask --app app db upgrade`). They add and change; they never drop
data.

Each migration names in `oldest_code` the newest migration that code must have to work on its schema: its own if it
removes or changes what older code uses (contract), otherwise its predecessor (expand). The database stores it for code
that does not have the migration yet: see `broadcast.store.schema`.
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
_PATIENCE = "500ms"  # below PostgreSQL's deadlock_timeout: the migration gives way, and nobody waits longer
_IN_THE_WAY = ("55P03", "40P01")  # lock_not_available, deadlock_detected
_TRIES, _PAUSE_SECONDS = 120, (0.2, 1.0)
_LOCK = zlib.crc32(b"migrations")  # an advisory lock of this database, named as in `store.leader_lock`
extension = current_app.extensions["migrate"]


def take_turns(connection: Connection) -> None:
    """Allow one node at a time to migrate this database, until this transaction ends: nodes upgraded together find the
    work done. Set a short lock timeout, as nodes of the previous version still write.
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
    """Run all migrations in one transaction where the database supports it."""
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
    """Migrate. While writers hold a needed lock, roll back, let them finish and retry."""
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
