"""Save a user's alert preferences."""

from datetime import datetime
from typing import Any

from broadcast.actions import notify
from broadcast.config.settings import SETTINGS
from broadcast.domain import preferences
from broadcast.domain.actor import Actor
from broadcast.domain.preferences import Preferences
from broadcast.store import receipts, users
from broadcast.store.transactions import write_transaction


def save(raw: dict[str, Any], *, by: Actor, now: datetime) -> Preferences:
    """Replace a user's preferences and notify their open pages. Raises Invalid."""
    new_preferences = preferences.parse_preferences(raw, now=now, mandatory=SETTINGS.current.mandatory_categories)
    with write_transaction() as session:
        users.set_preferences(session, by.user_id, new_preferences)
        version = receipts.increment_inbox_version(session, by.user_id, at=now)
    notify.notify_receipt(by.user_id, "preferences", [], version)
    return new_preferences
