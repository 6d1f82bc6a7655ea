"""One audit row per action, written in the action's transaction."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from broadcast.domain.actor import Actor
from broadcast.store import audit as store


def record(
    session: Session,
    by: Actor,
    action: str,
    object_type: str,
    object_id: int | str | None,
    *,
    now: datetime,
    **detail: Any,
) -> None:
    """Add an audit row; it is chained just before the commit. `detail` is any JSON-serialisable data."""
    store.append(
        session,
        at=now,
        actor_id=by.user_id,
        actor_name=by.name,
        action=action,
        object_type=object_type,
        object_id=None if object_id is None else str(object_id),
        detail=detail,
    )
