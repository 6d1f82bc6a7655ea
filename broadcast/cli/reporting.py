"""What every command has in common."""

from collections.abc import Callable
from functools import wraps

import click
from flask.cli import with_appcontext
from sqlalchemy.exc import SQLAlchemyError

from broadcast.base.errors import BroadcastError, Busy, Unsure
from broadcast.store import schema


def told(command: Callable) -> Callable:
    """Run a command inside an application context; an error becomes its sentence and exit status 1.

    So does a database that is away, or that has not the tables of this version.
    """

    @with_appcontext
    @wraps(command)
    def run(**options):
        try:
            return command(**options)
        except BroadcastError as problem:
            raise click.ClickException(_reason(problem) or str(problem)) from None
        except SQLAlchemyError as problem:
            if (sentence := schema.explain(problem)) is None:
                raise
            raise click.ClickException(sentence) from None

    return run


def _reason(problem: BroadcastError) -> str | None:
    """Why nothing could be written, in words for operators: people are told that the database is busy, whatever it is."""
    if isinstance(problem, Busy) and not isinstance(problem, Unsure):
        return schema.database_problem(with_reason=True)
    return None
