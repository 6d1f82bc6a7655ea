"""What the factory makes once for each application, under its type: settings, hub, bus, caches.

Each part is declared beside the class it holds (`HUB` in `streams.hub`), so an import shows who uses it, and the table of
imports sees it.
"""

from typing import Generic, TypeVar, cast

from flask import Flask, current_app

T = TypeVar("T")


class AppPart(Generic[T]):
    """One object of an application. `name` is its key in `app.extensions`."""

    def __init__(self, name: str):
        self.name = name

    def attach(self, app: Flask, part: T) -> T:
        """Make `part` that of `app`, and return it."""
        app.extensions[self.name] = part
        return part

    def of(self, app: Flask) -> T:
        """That of `app`. Raises KeyError before it is attached."""
        return cast(T, app.extensions[self.name])

    @property
    def current(self) -> T:
        """That of the current application. Raises RuntimeError outside of an application context."""
        return self.of(current_app)
