"""Saving what a person wants to be alerted of."""

from datetime import datetime
from typing import Any

from broadcast.actions import notify
from broadcast.config.settings import SETTINGS
from broadcast.domain import preferences
from broadcast.domain.actor import Actor
from broadcast.domain.preferences import Preferences
from broadcast.store import receipts, users
from broadcast.store.database import writing


def save(raw: dict[str, Any], *, by: Actor, now: datetime) -> Preferences:
    """Replace a person's preferences; their open pages hear of it. Raises Invalid, Busy."""
    wanted = preferences.read(raw, now=now, mandatory=SETTINGS.current.mandatory_categories)
    with writing() as session:
        users.set_preferences(session, by.user_id, wanted)
        version = receipts.raise_version(session, by.user_id, at=now)
    notify.receipt(by.user_id, "preferences", [], version)
    return wanted
