"""Thousands of streams that return at once are let in a few at a time, in the order in which they came.

Opening one asks the database who it is and what is unread. Let in all together, they wait for its connections until their
patience ends and honest clients are refused, and a page that somebody asks for meanwhile stands behind every one of them.
Waiting here costs a greenlet and nothing else.

SQLite answers within this process and never lets others run, so more than two at a time would only stand in each other's way.
"""

from flask import Flask, Response, g
from gevent.lock import BoundedSemaphore

from broadcast.config.settings import Settings
from broadcast.web.core.error_handlers import is_stream_request, make_stream_refusal

_MAX_OPENINGS_ON_SQLITE = 2  # one asks while the other writes its answer
_MAX_OPENINGS_ON_SERVER = 6  # fewer than the database connections of one worker, so that pages always find one
_ADMISSION_TIMEOUT_SECONDS = 20.0  # a database that is away is no reason to keep a client in doubt


def get_max_concurrent_openings(settings: Settings) -> int:
    """How many streams of one worker are opened at a time."""
    return _MAX_OPENINGS_ON_SQLITE if settings.database_uri.startswith("sqlite") else _MAX_OPENINGS_ON_SERVER


def init_app(app: Flask, settings: Settings) -> None:
    """Put the turnstile before everything that a stream asks the database; it opens again when the request is answered."""
    semaphore = BoundedSemaphore(get_max_concurrent_openings(settings))

    @app.before_request
    def _acquire_slot() -> Response | None:
        if not is_stream_request():
            return None
        if not semaphore.acquire(timeout=_ADMISSION_TIMEOUT_SECONDS):
            return make_stream_refusal("BUSY")
        g.is_through = True
        return None

    @app.teardown_request
    def _release_slot(_problem: BaseException | None) -> None:
        if g.pop("is_through", False):
            semaphore.release()
