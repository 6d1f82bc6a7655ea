"""Roles, and everything that refers to one by its name."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Text, cast, delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from broadcast.domain.lifecycle import Status
from broadcast.store import past_viewers
from broadcast.store.database import IN_A_THREAD, db
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

_UNENDED = (Status.DRAFT, Status.SCHEDULED, Status.ACTIVE)
_LONG = IN_A_THREAD | {"synchronize_session": False}  # a role may have a million people


def by_name(name: str) -> Role | None:
    """The role, unless it is deleted."""
    return None if "\0" in name else db.session.scalar(select(Role).where(Role.name == name, Role.deleted_at.is_(None)))


def locked(session: Session, name: str) -> Role | None:
    """The role under a lock that lets nobody refer to it anew; None when there is none."""
    if "\0" in name:
        return None
    query = select(Role).where(Role.name == name, Role.deleted_at.is_(None)).with_for_update()
    return session.scalar(query.execution_options(populate_existing=True))


def broadcasts_of(name: str, *, limit: int | None = None) -> Sequence[Broadcast]:
    """Drafts, plans and live broadcasts that address the role or leave it out, the newest first."""
    query = select(Broadcast).where(Broadcast.status.in_(_UNENDED), or_(_addresses(name), _leaves_out(name)))
    return db.session.scalars(query.order_by(Broadcast.id.desc()).limit(limit)).all()


def unended_counts() -> dict[str, dict[str, int]]:
    """How many broadcasts of each status name each role, by role and status."""
    found: dict[str, dict[str, int]] = {}
    for table in (BroadcastRole, BroadcastExceptRole):
        query = (
            select(table.role_name, Broadcast.status, func.count())
            .join(Broadcast, Broadcast.id == table.broadcast_id)
            .where(Broadcast.status.in_(_UNENDED))
            .group_by(table.role_name, Broadcast.status)
        )
        for role, status, count in db.session.execute(query):
            by_status = found.setdefault(role, {})
            by_status[status] = by_status.get(status, 0) + count
    return found


def saved_audiences_of(name: str) -> list[SavedAudience]:
    """Saved audiences that name the role."""
    rows = db.session.scalars(select(SavedAudience).order_by(func.lower(SavedAudience.name)))
    return [row for row in rows if _named_in(row.target, name)]


def rename(session: Session, role: Role, name: str) -> None:
    """Give a role that is `locked` another name, wherever it is referred to."""
    _refer_to(session, role, Role(name=name))
    _rename_in_json(session, role.name, name)
    session.execute(delete(Role).where(Role.name == role.name).execution_options(synchronize_session=False))
    session.expunge(role)


def retire(session: Session, role: Role, name: str, *, at: datetime) -> None:
    """Take a `locked` role from everybody. Under `name` it stays for the broadcasts that address it or leave it out.

    Whom an unended broadcast leaves out by the role stays left out, by name.
    """
    has = select(BroadcastExceptRole.broadcast_id, UserRole.user_id)
    has = has.join(UserRole, UserRole.role_name == BroadcastExceptRole.role_name)
    has = has.join(Broadcast, Broadcast.id == BroadcastExceptRole.broadcast_id)
    is_named = exists().where(
        BroadcastExceptUser.broadcast_id == BroadcastExceptRole.broadcast_id,
        BroadcastExceptUser.user_id == UserRole.user_id,
    )
    has = has.where(BroadcastExceptRole.role_name == role.name, Broadcast.status.in_(_UNENDED), ~is_named)
    columns = [BroadcastExceptUser.broadcast_id, BroadcastExceptUser.user_id]
    session.execute(insert(BroadcastExceptUser).from_select(columns, has), execution_options=_LONG)
    members = User.id.in_(select(UserRole.user_id).where(UserRole.role_name == role.name))
    past_viewers.remember(session, members, at=at)
    session.execute(delete(UserRole).where(UserRole.role_name == role.name), execution_options=_LONG)
    _refer_to(session, role, Role(name=name, deleted_at=at))
    session.execute(delete(Role).where(Role.name == role.name).execution_options(synchronize_session=False))
    session.expunge(role)


def people_of(session: Session, name: str) -> int:
    """How many people have the role, those with a closed account too."""
    return session.scalar(select(func.count()).select_from(UserRole).where(UserRole.role_name == name))


def _refer_to(session: Session, old: Role, new: Role) -> None:
    session.add(new)
    session.flush()
    for table in (UserRole, BroadcastRole, BroadcastExceptRole, PastViewerRole):
        statement = update(table).where(table.role_name == old.name).values(role_name=new.name)
        session.execute(statement, execution_options=_LONG)
    session.expire_all()


def _rename_in_json(session: Session, old: str, new: str) -> None:
    """In saved audiences, and in the forms of drafts as they were typed."""
    for row in session.scalars(select(SavedAudience)):
        if _named_in(row.target, old):
            names = {"exceptRoles": _renamed(row.target.get("exceptRoles"), old, new)}
            if row.target.get("targetType") == "ROLE":
                names["targetIds"] = _renamed(row.target.get("targetIds"), old, new)
            row.target = row.target | {key: value for key, value in names.items() if value}
    is_named = cast(Broadcast.typed, Text).contains(f'"{old}"', autoescape=True)
    query = select(Broadcast.id, Broadcast.typed).where(Broadcast.status == Status.DRAFT, is_named)
    for broadcast_id, typed in session.execute(query).all():
        names = {key: _renamed(typed.get(key), old, new) for key in ("roles", "exceptRoles")}
        fresh = typed | {key: value for key, value in names.items() if value}
        statement = update(Broadcast).where(Broadcast.id == broadcast_id).values(typed=fresh)
        session.execute(statement.execution_options(synchronize_session=False))


def _named_in(target: dict[str, Any], name: str) -> bool:
    targets = target.get("targetIds") if target.get("targetType") == "ROLE" else None
    return name in [*(targets or ()), *(target.get("exceptRoles") or ())]


def _renamed(names: Iterable[str] | None, old: str, new: str) -> list[str]:
    return [new if name == old else name for name in names or ()]


def _addresses(name: str) -> Any:
    return exists().where(BroadcastRole.broadcast_id == Broadcast.id, BroadcastRole.role_name == name)


def _leaves_out(name: str) -> Any:
    row = BroadcastExceptRole
    return exists().where(row.broadcast_id == Broadcast.id, row.role_name == name)
