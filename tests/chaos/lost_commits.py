"""Commits that a fail-over to an asynchronous standby lost: what the checker may forget of a history, and what it must see.

`history_lost` has `began` (from then on nothing more came to the standby), `ended` (it was promoted), `epoch`, and the newest
`seq` and `broadcast` that it had. Only what was answered between the two may be gone. Of each stream there must be a RESET
afterwards: that is how its client hears that what it has may not exist.
"""

from collections.abc import Sequence

from tests.chaos.checker import Violation, parse_seq
from tests.chaos.history import HistoryEvent, select_events


def exclude_lost_events(events: Sequence[HistoryEvent]) -> list[HistoryEvent]:
    """The history as if what was lost had not happened; the same one when nothing was lost."""
    for loss in select_events(events, "history_lost"):
        existing = {key for log in select_events(events, "log") for _, _, key in log["rows"]}
        events = [kept_event for kept_event in (_filter_event(event, loss, existing) for event in events) if kept_event]
    return list(events)


def find_streams_without_reset(events: Sequence[HistoryEvent]) -> list[Violation]:
    """Streams that had been open at a loss and got no RESET after it."""
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
    """What was answered ok and is gone."""
    return {event["key"] for event in select_events(events, "publish") if event["result"] == "ok"} - existing


def _is_reset_after(event: HistoryEvent, loss: HistoryEvent) -> bool:
    return event["event"] == "RESET" and event["at"] > loss["began"]


def _filter_event(event: HistoryEvent, loss: HistoryEvent, existing: set[str]) -> HistoryEvent | None:
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


def _is_lost(event: HistoryEvent, loss: HistoryEvent) -> bool:
    cursor = event.get("cursor") or event.get("id")
    if not cursor or cursor.rpartition("-")[0] != loss["epoch"]:
        return False
    return (parse_seq(cursor) or 0) > loss["seq"]
