"""Admission control: when thousands of streams reconnect at once, a few open at a time, in order of arrival.

Opening a stream queries the database for the session and the unread messages. All at once, they wait for database
connections until they time out, clients are refused, and page requests queue behind them. Waiting here costs only a
greenlet.

On SQLite they are more: its queries run in this process, one after another in any case, and those that wait for Redis at
the same time share a round trip (`redis_limit_storage`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask, Response, g
from gevent.lock import BoundedSemaphore

from broadcast.base.app_parts import AppPart
from broadcast.base.cooperative import Yielder
from broadcast.config.settings import Settings
from broadcast.web.core.error_handlers import is_stream_request, make_stream_refusal

_MAX_OPENINGS_ON_SQLITE = 32
_MAX_OPENINGS_ON_SERVER = 6  # fewer than a worker's database connections, so that pages always get one
_ADMISSION_TIMEOUT_SECONDS = 20.0  # do not keep a client waiting for an unavailable database


def get_max_concurrent_openings(settings: Settings) -> int:
    """How many streams of one worker may open at a time."""
    return _MAX_OPENINGS_ON_SQLITE if settings.database_uri.startswith("sqlite") else _MAX_OPENINGS_ON_SERVER


class StreamAdmission:
    """The slots of one worker."""

    def __init__(self, slot_count: int):
        self._semaphore, self._yielder = BoundedSemaphore(slot_count), Yielder()

    def acquire(self) -> bool:
        """Wait for a slot; False when there was none in time. Lets other greenlets run after some milliseconds of
        openings, as those on SQLite never wait for anything.
        """
        is_admitted = self._semaphore.acquire(timeout=_ADMISSION_TIMEOUT_SECONDS)
        if is_admitted:  # those that follow wait for the slot meanwhile
            self._yielder.maybe_yield()
        return is_admitted

    def release(self) -> None:
        self._semaphore.release()

    @contextmanager
    def slot(self) -> Iterator[bool]:
        """Whether there was a slot in time, which is released at the end."""
        is_admitted = self.acquire()
        try:
            yield is_admitted
        finally:
            if is_admitted:
                self.release()


def init_app(app: Flask, settings: Settings) -> None:
    """Acquire a slot before a stream's first database query; release it at the end of the request."""
    admission = STREAM_ADMISSION.attach(app, StreamAdmission(get_max_concurrent_openings(settings)))

    @app.before_request
    def _acquire_slot() -> Response | None:
        if not is_stream_request():
            return None
        if not admission.acquire():
            return make_stream_refusal("BUSY")
        g.is_through = True
        return None

    @app.teardown_request
    def _release_slot(_problem: BaseException | None) -> None:
        if g.pop("is_through", False):
            admission.release()


STREAM_ADMISSION = AppPart[StreamAdmission]("stream_admission")
