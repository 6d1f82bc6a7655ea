"""Resolve role names and usernames to audiences; save and delete named audiences."""

from datetime import datetime
from typing import Any

from sqlalchemy.exc import IntegrityError

from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.domain.actor import Actor
from broadcast.domain.audience import (
    Audience,
    EveryoneAudience,
    RoleAudience,
    UserAudience,
    display_role_name,
    exclude,
    make_role_audience,
    make_user_audience,
)
from broadcast.domain.message import Target, TargetType, is_single_line, parse_target
from broadcast.domain.permissions import Permission
from broadcast.domain.visible_text import is_blank
from broadcast.store import audit
from broadcast.store import users as people
from broadcast.store.models import SavedAudience
from broadcast.store.transactions import write_transaction

_MAX_LISTED_NAMES = 5  # unknown names listed in one error message
MAX_SNAPSHOT_RECIPIENTS = 50_000  # users frozen by name, one row each; a larger audience stays dynamic


def resolve_audience(target: Target) -> Audience:
    """Resolve names to an audience. Raises Invalid naming unknown roles and users; it never falls back to everyone."""
    problems: dict[str, str] = {}
    base_audience = _resolve_base(target, problems)
    if missing_names := people.find_missing_roles(target.except_roles):
        problems["exceptRoles"] = f"There is no role {_join_names(set(map(display_role_name, missing_names)))}."
    excluded_ids = people.resolve_ids(target.except_people)
    if missing_names := {str(name) for name in target.except_people if name not in excluded_ids}:
        problems["exceptIds"] = f"There is no user called {_join_names(missing_names)}, or the account is disabled."
    if problems:
        raise Invalid(problems)
    return exclude(base_audience, target.except_roles, excluded_ids.values())


def _resolve_base(target: Target, problems: dict[str, str]) -> EveryoneAudience | RoleAudience | UserAudience | None:
    if target.type is TargetType.ALL:
        return EveryoneAudience()
    if target.type is TargetType.ROLE:
        names = {str(name) for name in target.names}
        if missing_names := people.find_missing_roles(names):
            problems["targetIds"] = f"There is no role {_join_names(set(map(display_role_name, missing_names)))}."
        return make_role_audience(names, match_all=target.match_all)
    ids_by_name = people.resolve_ids(target.names)
    if missing_names := {str(name) for name in target.names if name not in ids_by_name}:
        problems["targetIds"] = f"There is no user called {_join_names(missing_names)}, or the account is disabled."
        return None
    return make_user_audience(ids_by_name.values())


def save(name: str, raw: dict[str, Any], *, by: Actor, now: datetime) -> int:
    """Save an audience under a name; return its id. Raises Invalid, Conflict (the name is taken)."""
    by.require(Permission.WRITE)
    name = " ".join(name.split())
    if not 0 < len(name) <= 80 or not is_single_line(name) or is_blank(name):
        raise Invalid({"name": "Enter a name of 1 to 80 characters."})
    resolve_audience(parse_target(raw))
    try:
        with write_transaction() as session:
            row = SavedAudience(name=name, target=raw, created_by=by.user_id, created_at=now)
            session.add(row)
            session.flush()
            audit.record(session, by, "audience.saved", "audience", row.id, now=now, name=name)
            return row.id
    except IntegrityError:
        raise Conflict(f"There is an audience called {name} already.") from None


def delete(saved_id: int, *, by: Actor, now: datetime) -> None:
    """Delete a saved audience; broadcasts made with it do not change. Raises NotFound."""
    by.require(Permission.WRITE)
    with write_transaction() as session:
        row = session.get(SavedAudience, saved_id)
        if row is None:
            raise NotFound("There is no such audience.")
        audit.record(session, by, "audience.deleted", "audience", row.id, now=now, name=row.name)
        session.delete(row)


def _join_names(names: set[str]) -> str:
    listed = ", ".join(sorted(names)[:_MAX_LISTED_NAMES])
    return listed + (f" and {len(names) - _MAX_LISTED_NAMES} more" if len(names) > _MAX_LISTED_NAMES else "")
