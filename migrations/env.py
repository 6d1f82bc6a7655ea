"""Runs migrations on the application's own engine (`flask --app app db upgrade`). They add and change; they never drop data."""

from alembic import context
from flask import current_app

extension = current_app.extensions["migrate"]


def run() -> None:
    with extension.db.engine.connect() as connection:
        context.configure(connection=connection, target_metadata=extension.db.metadata, **extension.configure_args)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    raise SystemExit("Migrations need a database: run them without --sql.")
run()
