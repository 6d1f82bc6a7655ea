"""Times on the wire and in the store. Everything is aware UTC; input without a zone is refused, never guessed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_SMALL = timedelta(seconds=1)  # asking another clock takes time too
_ahead = timedelta()  # the shared clock of this machine's

LAST_YEAR = 3000  # and none of it


def now() -> datetime:
    """The time by the clock that all machines share, once it was asked (`follow`)."""
    return datetime.now(UTC) + _ahead


def follow(ask: Callable[[], datetime]) -> datetime:
    """Return what the shared clock says, and go by it from now on if this machine's is more than a second away."""
    global _ahead
    began = datetime.now(UTC)
    shared, ended = ask(), datetime.now(UTC)
    if timedelta() <= ended - began < _SMALL:  # else the answer is too old, or this machine's clock was just set
        _ahead = shared - ended if abs(shared - ended) > _SMALL else timedelta()
    return shared


def to_wire(moment: datetime | None) -> str | None:
    """RFC 3339 with milliseconds and `Z`, or None for None."""
    return moment and moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_wire(text: str) -> datetime:
    """Parse RFC 3339. Raises ValueError without a zone, for no date at all, and outside the years 2000 to 2999."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs its zone")
    if not 2000 <= moment.year < LAST_YEAR:
        raise ValueError("a year from 2000 to 2999")
    return moment.astimezone(UTC)
