"""From names to audiences: which roles and people are meant, and audiences that are kept under a name."""

from datetime import datetime
from typing import Any

from sqlalchemy.exc import IntegrityError

from broadcast.actions import audit
from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.domain.actor import Actor
from broadcast.domain.audience import Audience, Everyone, Roles, Users, roles, spoken, users, without
from broadcast.domain.message import Target, TargetType, is_one_line, read_target
from broadcast.domain.permissions import Permission
from broadcast.domain.visible_text import is_blank
from broadcast.store import users as people
from broadcast.store.database import writing
from broadcast.store.models import SavedAudience

_NAMED = 5  # unknown names told in one sentence
MOST_SNAPSHOT = 50_000  # people frozen by name, a row each; beyond that an audience stays dynamic


def resolve(target: Target) -> Audience:
    """Make an audience of names. Raises Invalid naming the roles or people that do not exist: never "everybody" instead."""
    problems: dict[str, str] = {}
    base = _base(target, problems)
    if missing := people.missing_roles(target.except_roles):
        problems["exceptRoles"] = f"There is no role {_listed(set(map(spoken, missing)))}."
    left_out = people.ids_by_name(target.except_people)
    if missing := {str(name) for name in target.except_people if name not in left_out}:
        problems["exceptIds"] = f"There is nobody called {_listed(missing)}, or the account is disabled."
    if problems:
        raise Invalid(problems)
    return without(base, target.except_roles, left_out.values())


def _base(target: Target, problems: dict[str, str]) -> Everyone | Roles | Users | None:
    if target.type is TargetType.ALL:
        return Everyone()
    if target.type is TargetType.ROLE:
        names = {str(name) for name in target.names}
        if missing := people.missing_roles(names):
            problems["targetIds"] = f"There is no role {_listed(set(map(spoken, missing)))}."
        return roles(names, match_all=target.match_all)
    found = people.ids_by_name(target.names)
    if missing := {str(name) for name in target.names if name not in found}:
        problems["targetIds"] = f"There is nobody called {_listed(missing)}, or the account is disabled."
        return None
    return users(found.values())


def save(name: str, raw: dict[str, Any], *, by: Actor, now: datetime) -> int:
    """Keep an audience under a name; return its id. Raises Forbidden, Invalid, Conflict (the name is taken), Busy."""
    by.require(Permission.WRITE)
    name = " ".join(name.split())
    if not 0 < len(name) <= 80 or not is_one_line(name) or is_blank(name):
        raise Invalid({"name": "Give it a name of 1 to 80 characters."})
    resolve(read_target(raw))
    try:
        with writing() as session:
            row = SavedAudience(name=name, target=raw, created_by=by.user_id, created_at=now)
            session.add(row)
            session.flush()
            audit.record(session, by, "audience.saved", "audience", row.id, now=now, name=name)
            return row.id
    except IntegrityError:
        raise Conflict(f"There is an audience called {name} already.") from None


def forget(saved_id: int, *, by: Actor, now: datetime) -> None:
    """Delete a named audience; broadcasts made with it stay as they are. Raises Forbidden, NotFound, Busy."""
    by.require(Permission.WRITE)
    with writing() as session:
        row = session.get(SavedAudience, saved_id)
        if row is None:
            raise NotFound("There is no such audience.")
        audit.record(session, by, "audience.deleted", "audience", row.id, now=now, name=row.name)
        session.delete(row)


def _listed(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
