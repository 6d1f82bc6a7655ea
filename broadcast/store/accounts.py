"""Rename a user's row, or remove everything personal from it."""

import re
from datetime import datetime

from sqlalchemy import Text, cast, delete, func, select, update
from sqlalchemy.orm import Session

from broadcast.domain.lifecycle import Status
from broadcast.domain.preferences import Preferences
from broadcast.store import user_search, users
from broadcast.store.database import db
from broadcast.store.models import (
    ApiToken,
    Broadcast,
    IdempotencyKey,
    Invitation,
    LinkedIdentity,
    SavedAudience,
    UndoStep,
    User,
    UserSession,
)

FORMER_USER_NAME = "A former user"


def rename(session: Session, user: User, name: str) -> None:
    """Rename a user, also in the user search and on their unsent broadcasts."""
    is_unsent = Broadcast.sender_id == user.id, Broadcast.seq.is_(None), Broadcast.source.is_(None)
    for broadcast in session.scalars(select(Broadcast).where(*is_unsent, Broadcast.sender_name == user.name)):
        broadcast.sender_name = name
    user.name = name
    session.flush()
    user_search.reindex_user(session, user)


def count_unsent_by_status(user_id: int) -> dict[str, int]:
    """The number of drafts and scheduled broadcasts of a user, by status."""
    query = select(Broadcast.status, func.count()).group_by(Broadcast.status)
    query = query.where(Broadcast.sender_id == user_id, Broadcast.status.in_([Status.DRAFT, Status.SCHEDULED]))
    return dict(map(tuple, db.session.execute(query)))


def anonymize(session: Session, user: User, *, at: datetime) -> None:
    """Remove everything personal from the user's row, and delete everything else that is only theirs.

    The row itself stays, for receipts, broadcasts and the audit; its username becomes available again.
    """
    _replace_username_by_id(session, user)
    for table in (UserSession, ApiToken, LinkedIdentity, UndoStep, IdempotencyKey, Invitation):
        session.execute(delete(table).where(table.user_id == user.id).execution_options(synchronize_session=False))
    users.set_preferences(session, user.id, Preferences())
    user.username, user.name, user.password_hash = f"#{user.id}", FORMER_USER_NAME, None
    user.preferences, user.role_rows = {}, []
    user.disabled_at, user.deleted_at = user.disabled_at or at, at
    session.flush()
    user_search.remove_user(session, user)


def _replace_username_by_id(session: Session, user: User) -> None:
    """Replace the username by the id in saved audiences and drafts: an id is never reused."""
    for row in session.scalars(select(SavedAudience)):
        names_by_field = {key: row.target.get(key) or [] for key in ("targetIds", "exceptIds")}
        if row.target.get("targetType") == "ROLE":
            del names_by_field["targetIds"]
        changed_names = {
            key: [user.id if str(name).lower() == user.username else name for name in names]
            for key, names in names_by_field.items()
        }
        if changed_names != names_by_field:
            row.target = row.target | {key: names for key, names in changed_names.items() if names}
    username_pattern = re.compile(rf"(?<![^\s,;]){re.escape(user.username)}(?![^\s,;])", re.IGNORECASE)
    is_named = func.lower(cast(Broadcast.typed, Text)).contains(user.username, autoescape=True)
    query = select(Broadcast.id, Broadcast.typed).where(Broadcast.status == Status.DRAFT, is_named)
    for broadcast_id, typed in session.execute(query).all():
        texts = {key: username_pattern.sub(str(user.id), typed.get(key) or "") for key in ("people", "exceptPeople")}
        statement = update(Broadcast).where(Broadcast.id == broadcast_id).values(typed=typed | texts)
        session.execute(statement.execution_options(synchronize_session=False))
