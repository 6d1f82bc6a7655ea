"""Queries on message templates."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import load_only

from broadcast.store.database import db
from broadcast.store.models import MessageTemplate


def list_all() -> Sequence[MessageTemplate]:
    """All templates by name, without their texts: only name, title and variables are loaded."""
    loaded_columns = load_only(MessageTemplate.name, MessageTemplate.title, MessageTemplate.variables)
    return db.session.scalars(
        select(MessageTemplate).options(loaded_columns).order_by(func.lower(MessageTemplate.name))
    ).all()


def get(template_id: int) -> MessageTemplate | None:
    return db.session.get(MessageTemplate, template_id)
