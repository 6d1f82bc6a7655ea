"""What every command has in common."""

from collections.abc import Callable
from functools import wraps

import click
from flask.cli import with_appcontext

from broadcast.errors import BroadcastError


def told(command: Callable) -> Callable:
    """Run a command inside an application context; an error becomes its sentence and exit status 1."""

    @with_appcontext
    @wraps(command)
    def run(**options):
        try:
            return command(**options)
        except BroadcastError as problem:
            raise click.ClickException(str(problem)) from None

    return run
