"""Buffers the last use of sessions and tokens, and writes it later in one statement.

Thousands of streams return in the same seconds after a restart; one write for each would be most of that load.
"""

from datetime import datetime, timedelta

from broadcast.base.app_parts import AppPart
from broadcast.store import credentials
from broadcast.store.transactions import write_transaction

_MIN_INTERVAL = timedelta(minutes=5)  # nobody needs a finer resolution


def is_use_noteworthy(used_at: datetime | None, now: datetime) -> bool:
    """Whether a use at `now` is to be written; `used_at` is the stored last use."""
    return used_at is None or now - used_at > _MIN_INTERVAL


class LastUsedBuffer:
    """One worker's sessions and tokens with an unwritten last use. A dying worker loses a few seconds of them."""

    def __init__(self) -> None:
        self._session_ids: set[int] = set()
        self._token_ids: set[int] = set()

    def note_session(self, session_id: int, used_at: datetime | None, *, now: datetime) -> None:
        """Note that a session was used; `used_at` is its stored last use."""
        if is_use_noteworthy(used_at, now):
            self._session_ids.add(session_id)

    def note_token(self, token_id: int, used_at: datetime | None, *, now: datetime) -> None:
        if is_use_noteworthy(used_at, now):
            self._token_ids.add(token_id)

    def flush(self, now: datetime) -> None:
        """Write the buffer. Raises TemporarilyUnavailable; the buffer is kept then."""
        if not self._session_ids and not self._token_ids:
            return
        session_ids, token_ids = sorted(self._session_ids), sorted(self._token_ids)
        with write_transaction() as session:
            credentials.record_use(session, session_ids=session_ids, token_ids=token_ids, at=now)
        self._session_ids.difference_update(session_ids)
        self._token_ids.difference_update(token_ids)


LAST_USED_BUFFER = AppPart[LastUsedBuffer]("last_use")
