"""Who is not alerted of what: a row for each category a person has muted and each priority they have set aside.

The same as their preferences say (`domain.preferences.Preferences.silences`), kept so that a sender can be told how many of a
million people it concerns.
"""

from collections.abc import Collection

from sqlalchemy import ForeignKey, String, delete, insert, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from broadcast.domain.audience import Audience
from broadcast.domain.message import Priority
from broadcast.domain.preferences import Preferences
from broadcast.store import audiences
from broadcast.store.database import db
from broadcast.store.models import User


class Silence(db.Model):
    """`what` is "category News" or "priority LOW"."""

    __tablename__ = "silences"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    what: Mapped[str] = mapped_column(String(80), primary_key=True, index=True)


def put(session: Session, user_id: int, wanted: Preferences) -> None:
    """Replace what this person is not alerted of."""
    session.execute(delete(Silence).where(Silence.user_id == user_id))
    words = [f"category {name}" for name in wanted.muted_categories]
    words += [f"priority {p.value}" for p in Priority if wanted.silences(priority=p.value, category=None)]
    if words:
        session.execute(insert(Silence), [{"user_id": user_id, "what": what} for what in words])


def count(audience: Audience, *, priority: str, category: str | None, mandatory: Collection[str] = ()) -> int:
    """How many enabled people of the audience have muted such a message. URGENT ones alert them all the same."""
    what = [f"priority {priority}"]
    if category and category not in mandatory:
        what.append(f"category {category}")
    return audiences.count_those(audience, User.id.in_(select(Silence.user_id).where(Silence.what.in_(what))))
