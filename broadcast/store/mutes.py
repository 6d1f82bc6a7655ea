"""Which alerts users have muted: a row for each muted category and each muted priority.

It mirrors their preferences (`domain.preferences.Preferences.is_alert_muted`), so that a sender can be told how many of
a million users it concerns.
"""

from collections.abc import Collection

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from broadcast.domain.audience import Audience
from broadcast.domain.message import Priority
from broadcast.domain.preferences import Preferences
from broadcast.store import audiences
from broadcast.store.models import Mute, User


def replace_mutes(session: Session, user_id: int, preferences: Preferences) -> None:
    """Replace this user's mutes."""
    session.execute(delete(Mute).where(Mute.user_id == user_id))
    mute_keys = [f"category {name}" for name in preferences.muted_categories]
    mute_keys += [
        f"priority {p.value}" for p in Priority if preferences.is_alert_muted(priority=p.value, category=None)
    ]
    if mute_keys:
        session.execute(insert(Mute), [{"user_id": user_id, "what": mute_key} for mute_key in mute_keys])


def count_muted(
    audience: Audience, *, priority: str, category: str | None, mandatory_categories: Collection[str] = ()
) -> int:
    """How many enabled users of the audience have muted such a message. URGENT ones alert them all the same."""
    mute_keys = [f"priority {priority}"]
    if category and category not in mandatory_categories:
        mute_keys.append(f"category {category}")
    return audiences.count_matching(audience, User.id.in_(select(Mute.user_id).where(Mute.what.in_(mute_keys))))
