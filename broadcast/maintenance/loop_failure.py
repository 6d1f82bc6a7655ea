"""Describes why a background loop failed, as a sentence for the console. The log has the original error."""

from broadcast.base.errors import BroadcastError, TemporarilyUnavailable
from broadcast.bus.redis_client import CONNECTION_ERRORS, describe_failure
from broadcast.store.availability import is_driver_unavailable


def describe(problem: Exception) -> str:
    match problem:
        case TemporarilyUnavailable():
            return "The database is locked or unavailable."
        case BroadcastError():
            return str(problem)
        case OSError():
            return f"{problem.strerror or 'A connection failed'}."
    if isinstance(problem, CONNECTION_ERRORS):
        return f"Redis {describe_failure(problem)}."
    if is_driver_unavailable(problem):
        return "The database is locked or unavailable."
    return "An unexpected error. The log has it under loop.failed."
