"""Roles, and everything that refers to one by name."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from broadcast.domain.lifecycle import Status
from broadcast.store import audiences, broadcasts, escalation_policies, past_viewers
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
_NAMING_TABLES = (BroadcastRole, BroadcastExceptRole)
_BULK_OPTIONS = RUN_IN_THREAD | {"synchronize_session": False}  # a role may have a million users


def get(name: str) -> Role | None:
    """The role, unless it is deleted."""
    return None if "\0" in name else db.session.scalar(_select_role(name))


def get_for_update(session: Session, name: str) -> Role | None:
    """The role, locked against new references; None when there is none."""
    if "\0" in name:
        return None
    return session.scalar(_select_role(name).with_for_update().execution_options(populate_existing=True))


def list_broadcasts(name: str, *, limit: int | None = None) -> Sequence[Broadcast]:
    """Drafts, scheduled and live broadcasts that address or exclude the role, newest first."""
    is_named = or_(*(exists().where(t.broadcast_id == Broadcast.id, t.role_name == name) for t in _NAMING_TABLES))
    query = select(Broadcast).where(Broadcast.status.in_(_UNENDED_STATUSES), is_named)
    return db.session.scalars(query.order_by(Broadcast.id.desc()).limit(limit)).all()


def count_unended_broadcasts() -> dict[str, dict[str, int]]:
    """The number of unended broadcasts that name each role, by role and status."""
    counts_by_role: dict[str, dict[str, int]] = {}
    for table in _NAMING_TABLES:
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
    rows = db.session.scalars(select(SavedAudience).order_by(func.lower(SavedAudience.name)))
    return [row for row in rows if names_role(row.target, name)]


def rename(session: Session, role: Role, name: str) -> None:
    """Rename a role from `get_for_update` wherever it is referenced."""
    _rename_in_json(session, role.name, name)
    _replace(session, role, Role(name=name))


def retire(session: Session, role: Role, name: str, *, at: datetime) -> None:
    """Remove a role from `get_for_update` from all users. Broadcasts that address or exclude it keep it as `name`.

    Users whom an unended broadcast excludes by the role stay excluded, by name.
    """
    is_excluded_by_name = exists().where(
        BroadcastExceptUser.broadcast_id == BroadcastExceptRole.broadcast_id,
        BroadcastExceptUser.user_id == UserRole.user_id,
    )
    excluded_users = (
        select(BroadcastExceptRole.broadcast_id, UserRole.user_id)
        .join(UserRole, UserRole.role_name == BroadcastExceptRole.role_name)
        .join(Broadcast, Broadcast.id == BroadcastExceptRole.broadcast_id)
        .where(BroadcastExceptRole.role_name == role.name, Broadcast.status.in_(_UNENDED_STATUSES))
        .where(~is_excluded_by_name)
    )
    columns = [BroadcastExceptUser.broadcast_id, BroadcastExceptUser.user_id]
    session.execute(insert(BroadcastExceptUser).from_select(columns, excluded_users), execution_options=_BULK_OPTIONS)
    is_member = User.id.in_(select(UserRole.user_id).where(UserRole.role_name == role.name))
    past_viewers.close_current_periods(session, is_member, at=at)
    session.execute(delete(UserRole).where(UserRole.role_name == role.name), execution_options=_BULK_OPTIONS)
    _replace(session, role, Role(name=name, deleted_at=at))


def count_users(session: Session, name: str) -> int:
    """How many users have the role, disabled ones included."""
    return session.scalar(select(func.count()).select_from(UserRole).where(UserRole.role_name == name))


def _select_role(name: str) -> Select:
    return select(Role).where(Role.name == name, Role.deleted_at.is_(None))


def _replace(session: Session, old: Role, new: Role) -> None:
    """Add a role, let all rows refer to it instead of another one, and delete that one."""
    session.add(new)
    session.flush()
    for table in (UserRole, BroadcastRole, BroadcastExceptRole, PastViewerRole):
        statement = update(table).where(table.role_name == old.name).values(role_name=new.name)
        session.execute(statement, execution_options=_BULK_OPTIONS)
    session.execute(delete(Role).where(Role.name == old.name), execution_options=_BULK_OPTIONS)
    session.expunge(old)
    session.expire_all()


def _rename_in_json(session: Session, old: str, new: str) -> None:
    """Rename a role in saved audiences, escalation policies, and the typed forms of drafts."""

    def replace(name: str) -> str:
        return new if name == old else name

    def replace_in_draft(typed: dict[str, Any]) -> dict[str, list[str]]:
        return {key: [*map(replace, typed[key])] for key in ("roles", "exceptRoles") if typed.get(key)}

    audiences.replace_in_saved(session, "ROLE", replace)
    escalation_policies.rename_role(session, old, new)
    broadcasts.update_drafts_with(session, f'"{old}"', replace_in_draft)


def names_role(target: Mapping[str, Any], name: str) -> bool:
    """Whether an audience, in the public fields of a message, addresses or excludes the role."""
    targets = target.get("targetIds") if target.get("targetType") == "ROLE" else None
    return name in [*(targets or ()), *(target.get("exceptRoles") or ())]
