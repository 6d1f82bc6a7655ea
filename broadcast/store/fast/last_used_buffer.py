"""Remembers which sessions and tokens were used, and writes it down later, in one statement for all of them.

Thousands of streams return in the same seconds after a restart; a write for each, to note that it was there, would be most of
what their return costs.
"""

from datetime import datetime, timedelta

from broadcast.base.app_parts import AppPart
from broadcast.store import credentials
from broadcast.store.database import writing

_EVERY = timedelta(minutes=5)  # finer than this nobody asks


class LastUse:
    """Sessions and tokens of one worker whose last use is not written yet. A dying worker loses a few seconds of notes."""

    def __init__(self) -> None:
        self._sessions: set[int] = set()
        self._tokens: set[int] = set()

    def note_session(self, session_id: int, used_at: datetime | None, *, now: datetime) -> None:
        """A session was used; `used_at` is what is written of it."""
        if used_at is None or now - used_at > _EVERY:
            self._sessions.add(session_id)

    def note_token(self, token_id: int, used_at: datetime | None, *, now: datetime) -> None:
        if used_at is None or now - used_at > _EVERY:
            self._tokens.add(token_id)

    def flush(self, now: datetime) -> None:
        """Write what waits. Raises Busy; then it waits on."""
        if not self._sessions and not self._tokens:
            return
        sessions, tokens = sorted(self._sessions), sorted(self._tokens)
        with writing() as session:
            credentials.touch(session, sessions=sessions, tokens=tokens, at=now)
        self._sessions.difference_update(sessions)
        self._tokens.difference_update(tokens)


LAST_USED_BUFFER = AppPart[LastUse]("last_use")
