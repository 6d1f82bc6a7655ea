"""Remembers which sessions and tokens were used, and writes it down later, in one statement for all of them.

Thousands of streams return in the same seconds after a restart; a write for each, to note that it was there, would be most of
what their return costs.
"""

from datetime import datetime, timedelta

from broadcast.base.app_parts import AppPart
from broadcast.store import credentials
from broadcast.store.database import write_transaction

_MIN_INTERVAL = timedelta(minutes=5)  # finer than this nobody asks


class LastUsedBuffer:
    """Sessions and tokens of one worker whose last use is not written yet. A dying worker loses a few seconds of notes."""

    def __init__(self) -> None:
        self._session_ids: set[int] = set()
        self._token_ids: set[int] = set()

    def note_session(self, session_id: int, used_at: datetime | None, *, now: datetime) -> None:
        """A session was used; `used_at` is what is written of it."""
        if used_at is None or now - used_at > _MIN_INTERVAL:
            self._session_ids.add(session_id)

    def note_token(self, token_id: int, used_at: datetime | None, *, now: datetime) -> None:
        if used_at is None or now - used_at > _MIN_INTERVAL:
            self._token_ids.add(token_id)

    def flush(self, now: datetime) -> None:
        """Write what waits. Raises TemporarilyUnavailable; then it waits on."""
        if not self._session_ids and not self._token_ids:
            return
        session_ids, token_ids = sorted(self._session_ids), sorted(self._token_ids)
        with write_transaction() as session:
            credentials.record_use(session, session_ids=session_ids, token_ids=token_ids, at=now)
        self._session_ids.difference_update(session_ids)
        self._token_ids.difference_update(token_ids)


LAST_USED_BUFFER = AppPart[LastUsedBuffer]("last_use")
