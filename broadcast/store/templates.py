"""Questions about message templates."""

from collections.abc import Sequence

from sqlalchemy import func, select

from broadcast.store.database import db
from broadcast.store.models import MessageTemplate


def every() -> Sequence[MessageTemplate]:
    """All of them, by name."""
    return db.session.scalars(select(MessageTemplate).order_by(func.lower(MessageTemplate.name))).all()


def by_id(template_id: int) -> MessageTemplate | None:
    return db.session.get(MessageTemplate, template_id)
