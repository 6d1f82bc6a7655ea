"""Saving what a person wants to be alerted of."""

from datetime import datetime
from typing import Any

from flask import current_app

from broadcast.actions import announce
from broadcast.domain import preferences
from broadcast.domain.actor import Actor
from broadcast.domain.preferences import Preferences
from broadcast.store import people, receipts
from broadcast.store.database import writing


def save(raw: dict[str, Any], *, by: Actor, now: datetime) -> Preferences:
    """Replace a person's preferences; their open pages hear of it. Raises Invalid, Busy."""
    wanted = preferences.read(raw, now=now, mandatory=current_app.extensions["settings"].mandatory_categories)
    with writing() as session:
        people.set_preferences(session, by.user_id, wanted)
        version = receipts.raise_version(session, by.user_id, at=now)
    announce.receipt(by.user_id, "preferences", [], version)
    return wanted
