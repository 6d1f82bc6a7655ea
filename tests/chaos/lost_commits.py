"""Commits lost by a failover to an asynchronous standby: what the checker ignores in a history, and what it must see.

`history_lost` has `began` (nothing reached the standby after that), `ended` (it was promoted), `epoch`, and the newest
`seq` and `broadcast` of the standby. Only what was answered between the two times may be gone. Every stream must get a
RESET afterwards: it tells the client that what it has may not exist.
"""

from collections.abc import Sequence

from tests.chaos.checker import Violation, parse_seq
from tests.chaos.history import HistoryEvent, select_events


def exclude_lost_events(events: Sequence[HistoryEvent]) -> list[HistoryEvent]:
    """Return the history without what was lost; the same events if nothing was lost."""
    for loss in select_events(events, "history_lost"):
        existing = {key for log in select_events(events, "log") for _, _, key in log["rows"]}
        events = [kept_event for kept_event in (_filter_event(event, loss, existing) for event in events) if kept_event]
    return list(events)


def find_streams_without_reset(events: Sequence[HistoryEvent]) -> list[Violation]:
    """Return a violation for each stream that was open at a loss and got no RESET after it."""
    violations = []
    for loss in select_events(events, "history_lost"):
        streams = {event["stream"] for event in select_events(events, "connect") if event["at"] < loss["began"]}
        reset_streams = {event["stream"] for event in select_events(events, "frame") if _is_reset_after(event, loss)}
        violations += [
            Violation("I8", f"{stream} was not told that commits were lost")
            for stream in sorted(streams - reset_streams)
        ]
    return violations


def find_lost_keys(events: Sequence[HistoryEvent], existing: set[str]) -> set[str]:
    """Return the keys that were answered ok and no longer exist."""
    return {event["key"] for event in select_events(events, "publish") if event["result"] == "ok"} - existing


def _is_reset_after(event: HistoryEvent, loss: HistoryEvent) -> bool:
    return event["event"] == "RESET" and event["at"] > loss["began"]


def _filter_event(event: HistoryEvent, loss: HistoryEvent, existing: set[str]) -> HistoryEvent | None:
    """Return the event, changed if it was partly lost, or None if it was lost."""
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
            return event | {"result": "info"}  # the recall itself may be lost
        case "frame" | "reload" | "connect" if _is_lost(event, loss):
            return None
        case "frame" if event["event"] == "MESSAGE_REMOVED":
            return None  # the message may exist again
    return event


def _is_lost(event: HistoryEvent, loss: HistoryEvent) -> bool:
    cursor = event.get("cursor") or event.get("id")
    if not cursor or cursor.rpartition("-")[0] != loss["epoch"]:
        return False
    return (parse_seq(cursor) or 0) > loss["seq"]
