"""Runs migrations on the application's own engine (`flask --app app db upgrade`). They add and change; they never drop
data.

Each migration names in `oldest_code` the newest migration that code must have to work on its schema: its own if it
removes or changes what older code uses (contract), otherwise its predecessor (expand). The database stores it for code
that does not have the migration yet: see `broadcast.store.schema`.
"""

import random
import re
import time
import zlib
from typing import Any

import structlog
from alembic import context
from alembic.operations.ops import MigrationScript
from flask import current_app
from sqlalchemy import Connection, TypeDecorator, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from broadcast.store import schema

_log = structlog.get_logger(__name__)
_PATIENCE = "500ms"  # below PostgreSQL's deadlock_timeout: the migration gives way, and nobody waits longer
_IN_THE_WAY = ("55P03", "40P01")  # lock_not_available, deadlock_detected
_TRIES, _PAUSE_SECONDS = 120, (0.2, 1.0)
_LOCK = zlib.crc32(b"migrations")  # an advisory lock of this database, named as in `store.leader_lock`
_SEARCH_INDEXES = ("broadcast_search", "ix_broadcasts_search")  # SQL makes them: the FTS5 tables, the index of words
extension = current_app.extensions["migrate"]


def take_turns(connection: Connection) -> None:
    """Allow one node at a time to migrate this database, until this transaction ends: nodes upgraded together find the
    work done. Set a short lock timeout, as nodes of the previous version still write.
    """
    set_patience = text("SELECT set_config('lock_timeout', :value, true)")
    connection.execute(set_patience, {"value": "0"})
    connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK})
    connection.execute(set_patience, {"value": _PATIENCE})


def include_object(_object: Any, name: str, _kind: str, _is_reflected: bool, _model: Any) -> bool:
    """What autogenerate compares: not what only SQL can describe."""
    return not name.startswith(_SEARCH_INDEXES)


def render_item(kind: str, item: Any, _autogenerate: Any) -> str | bool:
    """A column type of the application as the plain type that it stores: a migration never changes with the code."""
    return f"sa.{item.impl!r}" if kind == "type" and isinstance(item, TypeDecorator) else False


def name_revision(_context: Any, _revision: Any, scripts: list[MigrationScript]) -> None:
    """Name a new revision by number and message: `0021_words` for "words: which words a user saved"."""
    number = int(context.script.get_current_head()[:4]) + 1
    slug = re.sub(r"\W+", "_", (scripts[0].message or "").partition(":")[0].lower())
    scripts[0].rev_id = f"{number:04}_{slug}".strip("_")


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
        context.configure(
            connection=connection,
            target_metadata=extension.db.metadata,
            include_object=include_object,
            render_item=render_item,
            process_revision_directives=name_revision,
            # what a new migration names as long as old code works on its schema
            template_args={"oldest_code": context.script.get_revision("head").module.oldest_code},
            **extension.configure_args,
        )
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
