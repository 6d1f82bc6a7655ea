"""Keeps a user's tabs and devices in step: sends what was done in one to the streams of the others.

A receipt arrives as a signal of the bus, within milliseconds. Signals may be lost, so the database is polled too: users
whose inbox version was not sent yet get it now, and the page, which knows its own version, reloads its list. It runs in
a worker, beside the tailer, and like it does not depend on Redis.
"""

from datetime import datetime, timedelta

import gevent
from flask import Flask

from broadcast.domain import clock
from broadcast.store import inbox
from broadcast.store import users as people
from broadcast.store.inbox import Inbox
from broadcast.streams import sse
from broadcast.streams.hub import Hub

_SIGNAL_GRACE = timedelta(seconds=1)  # newer changes are left to the signal
_QUERY_OVERLAP = timedelta(seconds=30)  # how late a change may be committed, and how far clocks may differ


class ReceiptSync:
    """For one hub. `_sent_versions` is the newest version sent to the streams here, per recently active user."""

    def __init__(self, app: Flask, hub: Hub):
        self._app, self._hub = app, hub
        self._sent_versions: dict[int, int] = {}
        self._queried_at: datetime | None = None

    def handle_signal(self, user_id: int, kind: str, ids: list[int], version: int) -> None:
        """Handle a signal. Returns at once."""
        gevent.spawn(self._send_receipt, user_id, kind, ids, version)

    def send_missed(self, now: datetime) -> None:
        """Send what no signal reported. Raises if the database is down; the next call makes up for it."""
        since = (self._queried_at or now) - _QUERY_OVERLAP
        with self._app.app_context():
            changed = inbox.list_version_changes(since, until=now - _SIGNAL_GRACE)
        for user_id, version in changed:
            if version > self._sent_versions.get(user_id, 0) and user_id in self._hub.online_user_ids:
                self._send_receipt(user_id, "missed", [], version)
        self._sent_versions = {
            user_id: max(version, self._sent_versions.get(user_id, 0)) for user_id, version in changed
        }
        self._queried_at = now

    def _send_receipt(self, user_id: int, kind: str, ids: list[int], version: int) -> None:
        self._sent_versions[user_id] = max(version, self._sent_versions.get(user_id, 0))
        if user_id not in self._hub.online_user_ids:
            return
        with self._app.app_context():
            user = people.get(user_id)
            if user is None:
                return
            unread = Inbox(user.as_viewer, now=clock.now()).count_unread()
        data = {"kind": kind, "ids": ids, "version": version, "unread": unread.count, "asOf": unread.as_of}
        self._hub.send_to_user(user_id, sse.encode_json_frame(sse.UnloggedEvent.READ_RECEIPT, data))
