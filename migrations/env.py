"""Runs migrations on the application's own engine (`flask --app app db upgrade`). They add and change; they never drop data.

Each migration names in `oldest_code` the newest migration that code must have to work on the schema it makes: its own if it
takes away or changes what older code uses (it contracts), otherwise that of the migration before it (it expands). The database
keeps it for code that does not have the migration yet: see `broadcast.store.schema`.
"""

import zlib

from alembic import context
from flask import current_app
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from broadcast.store import schema

_LOCK = zlib.crc32(b"migrations")  # of the advisory locks of this database, named as `store.lease` names its own
extension = current_app.extensions["migrate"]


def take_turns(connection: Connection) -> None:
    """Let no other node migrate this database until this transaction ends: of nodes that are upgraded together one does the
    work, and the others find it done. The engine's patience with locks, a moment, holds for the migrations themselves.
    """
    patience = connection.scalar(text("SHOW lock_timeout"))
    set_patience = text("SELECT set_config('lock_timeout', :value, true)")
    connection.execute(set_patience, {"value": "0"})
    connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK})
    connection.execute(set_patience, {"value": patience})


def connect() -> Connection:
    try:
        return extension.db.engine.connect()
    except SQLAlchemyError as problem:
        if (sentence := schema.explain(problem)) is None:
            raise
        raise SystemExit(sentence) from None


def run() -> None:
    with connect() as connection:
        if problem := schema.encoding_problem():
            raise SystemExit(problem)
        context.configure(connection=connection, target_metadata=extension.db.metadata, **extension.configure_args)
        with context.begin_transaction():
            if connection.dialect.name == "postgresql":
                take_turns(connection)
            context.run_migrations()
            schema.note_support(connection, context.script)


if context.is_offline_mode():
    raise SystemExit("Migrations need a database: run them without --sql.")
run()
