"""Why a background loop failed, in a sentence for the console. The log has the program's own words (`loop.failed`)."""

from broadcast.base.errors import BroadcastError, Busy
from broadcast.bus.redis_client import AWAY, why_away
from broadcast.store.availability import is_driver_unavailable


def describe(problem: Exception) -> str:
    match problem:
        case Busy():
            return "The database is locked or away."
        case BroadcastError():
            return str(problem)
        case OSError():
            return f"{problem.strerror or 'A connection failed'}."
    if isinstance(problem, AWAY):
        return f"Redis {why_away(problem)}."
    if is_driver_unavailable(problem):
        return "The database is locked or away."
    return "An unexpected error. The log has it under loop.failed."
