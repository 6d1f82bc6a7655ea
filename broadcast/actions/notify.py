"""Notifications after a commit, so that every worker reads the log now and not at its next poll."""

from gevent.event import Event

from broadcast.base.app_parts import AppPart
from broadcast.bus.protocol import BUS

MAX_RECEIPT_IDS = 100  # in one notification: more than a page shows
SCHEDULER_WAKEUP = AppPart[Event]("scheduler_wakeup")


def notify_workers() -> None:
    BUS.current.notify()


def notify_schedulers() -> None:
    """Wake the schedulers: something may be due earlier than they know. The local one wakes even without Redis."""
    SCHEDULER_WAKEUP.current.set()
    BUS.current.send_signal("due", {})


def request_disconnect(user_id: int, connection_id: str) -> None:
    """Ask the worker that holds this stream of the user to close it."""
    BUS.current.send_signal("disconnect", {"user": user_id, "connection": connection_id})


def notify_receipt(user_id: int, kind: str, ids: list[int], version: int) -> None:
    """Notify the user's other tabs and devices of an action, with the inbox version it produced.

    They query the database for the counts. Without ids (or with too many to send) they reload their list.
    """
    sent_ids = ids if len(ids) <= MAX_RECEIPT_IDS else []
    BUS.current.send_signal("receipt", {"user": user_id, "kind": kind, "ids": sent_ids, "version": version})
