"""What every command has in common."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError

from broadcast.base.errors import BroadcastError, CommitOutcomeUnknown, TemporarilyUnavailable
from broadcast.store import schema


class CommandGroup(AppGroup):
    """Commands that run inside an application context; an error becomes its sentence and exit status 1.

    So does a database that is away, or that has not the tables of this version.
    """

    def command(self, *args: Any, **options: Any) -> Callable:
        make_command = super().command(*args, **options)
        return lambda function: make_command(_report_errors(function))


def _report_errors(command: Callable) -> Callable:
    @wraps(command)
    def wrapper(**options):
        try:
            return command(**options)
        except BroadcastError as problem:
            raise click.ClickException(_explain_unavailable(problem) or str(problem)) from None
        except SQLAlchemyError as problem:
            if (sentence := schema.explain_error(problem)) is None:
                raise
            raise click.ClickException(sentence) from None

    return wrapper


def _explain_unavailable(problem: BroadcastError) -> str | None:
    """Why nothing could be written, in words for operators: people are told that the database is busy, whatever it is."""
    if isinstance(problem, TemporarilyUnavailable) and not isinstance(problem, CommitOutcomeUnknown):
        return schema.find_database_problem(should_include_reason=True)
    return None
