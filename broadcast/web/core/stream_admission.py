"""Thousands of streams that return at once are let in a few at a time, in the order in which they came.

Opening one asks the database who it is and what is unread. Let in all together, they wait for its connections until their
patience ends and honest clients are refused, and a page that somebody asks for meanwhile stands behind every one of them.
Waiting here costs a greenlet and nothing else.

SQLite answers within this process and never lets others run, so more than two at a time would only stand in each other's way.
"""

from flask import Flask, Response, g
from gevent.lock import BoundedSemaphore

from broadcast.config.settings import Settings
from broadcast.web.core.error_handlers import is_stream, stream_refusal

_ON_SQLITE = 2  # one asks while the other writes its answer
_ON_A_SERVER = 6  # fewer than the database connections of one worker, so that pages always find one
_PATIENCE_SECONDS = 20.0  # a database that is away is no reason to keep a client in doubt


def at_once(settings: Settings) -> int:
    """How many streams of one worker are opened at a time."""
    return _ON_SQLITE if settings.database_uri.startswith("sqlite") else _ON_A_SERVER


def init_app(app: Flask, settings: Settings) -> None:
    """Put the turnstile before everything that a stream asks the database; it opens again when the request is answered."""
    turnstile = BoundedSemaphore(at_once(settings))

    @app.before_request
    def _enter() -> Response | None:
        if not is_stream():
            return None
        if not turnstile.acquire(timeout=_PATIENCE_SECONDS):
            return stream_refusal("BUSY")
        g.is_through = True
        return None

    @app.teardown_request
    def _leave(_problem: BaseException | None) -> None:
        if g.pop("is_through", False):
            turnstile.release()
