"""Times in JSON and in the database. Everything is aware UTC; input without a zone is refused, never guessed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_MAX_SKEW = timedelta(seconds=1)  # asking another clock takes time too
_offset = timedelta()  # of the shared clock from this machine's

YEAR_LIMIT = 3000  # exclusive


def now() -> datetime:
    """The current time by the shared clock of all machines, once `synchronize` has read it."""
    return datetime.now(UTC) + _offset


def synchronize(read_shared_clock: Callable[[], datetime]) -> datetime:
    """Return the shared clock's time; use it from now on if this machine's clock differs by more than a second."""
    global _offset
    started_at = datetime.now(UTC)
    shared_time, finished_at = read_shared_clock(), datetime.now(UTC)
    if (
        timedelta() <= finished_at - started_at < _MAX_SKEW
    ):  # else the answer is too old, or this machine's clock was just set
        _offset = shared_time - finished_at if abs(shared_time - finished_at) > _MAX_SKEW else timedelta()
    return shared_time


def to_rfc3339(moment: datetime | None) -> str | None:
    """RFC 3339 with milliseconds and `Z`, or None for None."""
    return moment and moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_rfc3339(text: str) -> datetime:
    """Parse RFC 3339. Raises ValueError for no date, for a time without a zone, and outside the years 2000 to 2999."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs its zone")
    if not 2000 <= moment.year < YEAR_LIMIT:
        raise ValueError("a year from 2000 to 2999")
    return moment.astimezone(UTC)
