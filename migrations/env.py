"""Runs migrations on the application's own engine (`flask --app app db upgrade`). They add and change; they never drop data.

Each migration names in `oldest_code` the newest migration that code must have to work on the schema it makes: its own if it
takes away or changes what older code uses (it contracts), otherwise that of the migration before it (it expands). The database
keeps it for code that does not have the migration yet: see `broadcast.store.schema`.
"""

from alembic import context
from flask import current_app

from broadcast.store import schema

extension = current_app.extensions["migrate"]


def run() -> None:
    if problem := schema.encoding_problem():
        raise SystemExit(problem)
    with extension.db.engine.connect() as connection:
        context.configure(connection=connection, target_metadata=extension.db.metadata, **extension.configure_args)
        with context.begin_transaction():
            context.run_migrations()
            schema.note_support(connection, context.script)


if context.is_offline_mode():
    raise SystemExit("Migrations need a database: run them without --sql.")
run()
