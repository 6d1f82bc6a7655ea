"""Objects that the factory makes once per application: settings, hub, bus, caches.

Each part is declared beside the class it holds (`HUB` in `streams.hub`), so an import shows who uses it and the import
table covers it.
"""

from typing import Generic, TypeVar, cast

from flask import Flask, current_app

T = TypeVar("T")


class AppPart(Generic[T]):
    """A typed slot for one object per application. `name` is its key in `app.extensions`."""

    def __init__(self, name: str):
        self.name = name

    def attach(self, app: Flask, part: T) -> T:
        """Store `part` as that of `app`, and return it."""
        app.extensions[self.name] = part
        return part

    def of(self, app: Flask) -> T:
        """The part of `app`. Raises KeyError before it is attached."""
        return cast(T, app.extensions[self.name])

    @property
    def current(self) -> T:
        """The part of the current application. Raises RuntimeError outside an application context."""
        return self.of(current_app)
