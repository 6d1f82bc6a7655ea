"""Roles, and everything that refers to one by name."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Text, cast, delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from broadcast.domain.lifecycle import Status
from broadcast.store import past_viewers
from broadcast.store.database import db
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.models import (
    Broadcast,
    BroadcastExceptRole,
    BroadcastExceptUser,
    BroadcastRole,
    PastViewerRole,
    Role,
    SavedAudience,
    User,
    UserRole,
)

_UNENDED_STATUSES = (Status.DRAFT, Status.SCHEDULED, Status.ACTIVE)
_BULK_OPTIONS = RUN_IN_THREAD | {"synchronize_session": False}  # a role may have a million users


def get(name: str) -> Role | None:
    """The role, unless it is deleted."""
    return None if "\0" in name else db.session.scalar(select(Role).where(Role.name == name, Role.deleted_at.is_(None)))


def get_for_update(session: Session, name: str) -> Role | None:
    """The role, locked against new references; None when there is none."""
    if "\0" in name:
        return None
    query = select(Role).where(Role.name == name, Role.deleted_at.is_(None)).with_for_update()
    return session.scalar(query.execution_options(populate_existing=True))


def list_broadcasts(name: str, *, limit: int | None = None) -> Sequence[Broadcast]:
    """Drafts, scheduled and live broadcasts that address or exclude the role, newest first."""
    query = select(Broadcast).where(
        Broadcast.status.in_(_UNENDED_STATUSES), or_(_targets_role(name), _excludes_role(name))
    )
    return db.session.scalars(query.order_by(Broadcast.id.desc()).limit(limit)).all()


def count_unended_broadcasts() -> dict[str, dict[str, int]]:
    """The number of unended broadcasts that name each role, by role and status."""
    counts_by_role: dict[str, dict[str, int]] = {}
    for table in (BroadcastRole, BroadcastExceptRole):
        query = (
            select(table.role_name, Broadcast.status, func.count())
            .join(Broadcast, Broadcast.id == table.broadcast_id)
            .where(Broadcast.status.in_(_UNENDED_STATUSES))
            .group_by(table.role_name, Broadcast.status)
        )
        for role, status, count in db.session.execute(query):
            by_status = counts_by_role.setdefault(role, {})
            by_status[status] = by_status.get(status, 0) + count
    return counts_by_role


def list_saved_audiences(name: str) -> list[SavedAudience]:
    """Saved audiences that name the role."""
    rows = db.session.scalars(select(SavedAudience).order_by(func.lower(SavedAudience.name)))
    return [row for row in rows if _names_role(row.target, name)]


def rename(session: Session, role: Role, name: str) -> None:
    """Rename a role from `get_for_update` wherever it is referenced."""
    _move_references(session, role, Role(name=name))
    _rename_in_json(session, role.name, name)
    session.execute(delete(Role).where(Role.name == role.name).execution_options(synchronize_session=False))
    session.expunge(role)


def retire(session: Session, role: Role, name: str, *, at: datetime) -> None:
    """Remove a role from `get_for_update` from all users. Broadcasts that address or exclude it keep it as `name`.

    Users whom an unended broadcast excludes by the role stay excluded, by name.
    """
    excluded_users = select(BroadcastExceptRole.broadcast_id, UserRole.user_id)
    excluded_users = excluded_users.join(UserRole, UserRole.role_name == BroadcastExceptRole.role_name)
    excluded_users = excluded_users.join(Broadcast, Broadcast.id == BroadcastExceptRole.broadcast_id)
    is_excluded_by_name = exists().where(
        BroadcastExceptUser.broadcast_id == BroadcastExceptRole.broadcast_id,
        BroadcastExceptUser.user_id == UserRole.user_id,
    )
    excluded_users = excluded_users.where(
        BroadcastExceptRole.role_name == role.name, Broadcast.status.in_(_UNENDED_STATUSES), ~is_excluded_by_name
    )
    columns = [BroadcastExceptUser.broadcast_id, BroadcastExceptUser.user_id]
    session.execute(insert(BroadcastExceptUser).from_select(columns, excluded_users), execution_options=_BULK_OPTIONS)
    is_member = User.id.in_(select(UserRole.user_id).where(UserRole.role_name == role.name))
    past_viewers.close_current_periods(session, is_member, at=at)
    session.execute(delete(UserRole).where(UserRole.role_name == role.name), execution_options=_BULK_OPTIONS)
    _move_references(session, role, Role(name=name, deleted_at=at))
    session.execute(delete(Role).where(Role.name == role.name).execution_options(synchronize_session=False))
    session.expunge(role)


def count_users(session: Session, name: str) -> int:
    """How many users have the role, disabled ones included."""
    return session.scalar(select(func.count()).select_from(UserRole).where(UserRole.role_name == name))


def _move_references(session: Session, old: Role, new: Role) -> None:
    session.add(new)
    session.flush()
    for table in (UserRole, BroadcastRole, BroadcastExceptRole, PastViewerRole):
        statement = update(table).where(table.role_name == old.name).values(role_name=new.name)
        session.execute(statement, execution_options=_BULK_OPTIONS)
    session.expire_all()


def _rename_in_json(session: Session, old: str, new: str) -> None:
    """Rename a role in saved audiences, and in the typed forms of drafts."""
    for row in session.scalars(select(SavedAudience)):
        if _names_role(row.target, old):
            names = {"exceptRoles": _replace_name(row.target.get("exceptRoles"), old, new)}
            if row.target.get("targetType") == "ROLE":
                names["targetIds"] = _replace_name(row.target.get("targetIds"), old, new)
            row.target = row.target | {key: value for key, value in names.items() if value}
    is_named = cast(Broadcast.typed, Text).contains(f'"{old}"', autoescape=True)
    query = select(Broadcast.id, Broadcast.typed).where(Broadcast.status == Status.DRAFT, is_named)
    for broadcast_id, typed_fields in session.execute(query).all():
        names = {key: _replace_name(typed_fields.get(key), old, new) for key in ("roles", "exceptRoles")}
        new_fields = typed_fields | {key: value for key, value in names.items() if value}
        statement = update(Broadcast).where(Broadcast.id == broadcast_id).values(typed=new_fields)
        session.execute(statement.execution_options(synchronize_session=False))


def _names_role(target: dict[str, Any], name: str) -> bool:
    targets = target.get("targetIds") if target.get("targetType") == "ROLE" else None
    return name in [*(targets or ()), *(target.get("exceptRoles") or ())]


def _replace_name(names: Iterable[str] | None, old: str, new: str) -> list[str]:
    return [new if name == old else name for name in names or ()]


def _targets_role(name: str) -> Any:
    return exists().where(BroadcastRole.broadcast_id == Broadcast.id, BroadcastRole.role_name == name)


def _excludes_role(name: str) -> Any:
    row = BroadcastExceptRole
    return exists().where(row.broadcast_id == Broadcast.id, row.role_name == name)
