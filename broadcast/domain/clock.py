"""Times on the wire and in the store. Everything is aware UTC; input without a zone is refused, never guessed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_MAX_SKEW = timedelta(seconds=1)  # asking another clock takes time too
_offset = timedelta()  # the shared clock of this machine's

YEAR_LIMIT = 3000  # and none of it


def now() -> datetime:
    """The time by the clock that all machines share, once it was asked (`synchronize`)."""
    return datetime.now(UTC) + _offset


def synchronize(read_shared_clock: Callable[[], datetime]) -> datetime:
    """Return what the shared clock says, and go by it from now on if this machine's is more than a second away."""
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
    """Parse RFC 3339. Raises ValueError without a zone, for no date at all, and outside the years 2000 to 2999."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs its zone")
    if not 2000 <= moment.year < YEAR_LIMIT:
        raise ValueError("a year from 2000 to 2999")
    return moment.astimezone(UTC)
