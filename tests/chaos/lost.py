"""Commits that a fail-over to an asynchronous standby lost: what the checker may forget of a history, and what it must see.

`history_lost` has `began` (from then on nothing more came to the standby), `ended` (it was promoted), `epoch`, and the newest
`seq` and `broadcast` that it had. Only what was answered between the two may be gone. Of each stream there must be a RESET
afterwards: that is how its client hears that what it has may not exist.
"""

from collections.abc import Sequence

from tests.chaos.checker import Violation, seq_of
from tests.chaos.history import Happened, of


def without_lost_history(events: Sequence[Happened]) -> list[Happened]:
    """The history as if what was lost had not happened; the same one when nothing was lost."""
    for loss in of(events, "history_lost"):
        existing = {key for log in of(events, "log") for _, _, key in log["rows"]}
        events = [one for one in (_after_loss(event, loss, existing) for event in events) if one]
    return list(events)


def not_told(events: Sequence[Happened]) -> list[Violation]:
    """Streams that had been open at a loss and got no RESET after it."""
    found = []
    for loss in of(events, "history_lost"):
        streams = {event["stream"] for event in of(events, "connect") if event["at"] < loss["began"]}
        told = {event["stream"] for event in of(events, "frame") if _says_reset(event, loss)}
        found += [Violation("I8", f"{stream} was not told that commits were lost") for stream in sorted(streams - told)]
    return found


def lost_keys(events: Sequence[Happened], existing: set[str]) -> set[str]:
    """What was answered ok and is gone."""
    return {event["key"] for event in of(events, "publish") if event["result"] == "ok"} - existing


def _says_reset(event: Happened, loss: Happened) -> bool:
    return event["event"] == "RESET" and event["at"] > loss["began"]


def _after_loss(event: Happened, loss: Happened, existing: set[str]) -> Happened | None:
    """That event, or what is left of it, or None: it is of what was lost."""
    if not loss["began"] <= event["at"] <= loss["ended"]:
        return event
    match event["kind"]:
        case "publish" if event["key"] not in existing:
            return None
        case "receipt":
            return None
        case "inbox":
            return event if event["final"] else None
        case "end" if event["id"] > loss["broadcast"]:
            return None
        case "end" if event["why"] == "recalled":
            return event | {"result": "info"}  # it may be one of those that were lost
        case "frame" | "reload" | "connect" if _is_lost(event, loss):
            return None
        case "frame" if event["event"] == "MESSAGE_REMOVED":
            return None  # the message may be back
    return event


def _is_lost(event: Happened, loss: Happened) -> bool:
    cursor = event.get("cursor") or event.get("id")
    if not cursor or cursor.rpartition("-")[0] != loss["epoch"]:
        return False
    return (seq_of(cursor) or 0) > loss["seq"]
