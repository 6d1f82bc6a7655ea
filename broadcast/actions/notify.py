"""What is done after a commit: ring, so that every worker reads the log now and not at its next poll."""

from gevent.event import Event

from broadcast.base.app_parts import AppPart
from broadcast.bus.protocol import BUS, Bus

MOST_IDS = 100  # of one receipt: more than a page shows
SCHEDULER_WAKEUP = AppPart[Event]("scheduler_wakeup")


def _bus() -> Bus:
    return BUS.current


def ring() -> None:
    _bus().ring()


def due() -> None:
    """Wake the clocks: something may be due earlier than they knew. This worker's at once, even while Redis is away."""
    SCHEDULER_WAKEUP.current.set()
    _bus().signal("due", {})


def disconnect(user_id: int, connection_id: str) -> None:
    """Ask the worker that holds this stream of this person, whichever it is, to close it."""
    _bus().signal("disconnect", {"user": user_id, "connection": connection_id})


def receipt(user_id: int, kind: str, ids: list[int], version: int) -> None:
    """Tell the other tabs and devices of a person what was done just now, and which version of the inbox that made.

    They ask the database for the counts. Without ids (or with too many to be worth telling) they load their list.
    """
    told = ids if len(ids) <= MOST_IDS else []
    _bus().signal("receipt", {"user": user_id, "kind": kind, "ids": told, "version": version})
