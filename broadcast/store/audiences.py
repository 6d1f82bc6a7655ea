"""The rule of `broadcast.domain.audience` in SQL: for a stored broadcast and one viewer, and for an audience and all people.

Lists of ids go in chunks, so that an audience of 50,000 people by name fits into statements of every database.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from flask import current_app
from sqlalchemy import ColumnElement, Select, and_, case, distinct, exists, func, or_, select, true
from sqlalchemy.orm import aliased

from broadcast.domain.audience import Audience, Everyone, Except, Roles, Users, roles
from broadcast.store import id_sets
from broadcast.store.database import db
from broadcast.store.models import (
    Broadcast,
    BroadcastExceptRole,
    BroadcastExceptUser,
    BroadcastRole,
    BroadcastUser,
    PeopleVersion,
    SavedAudience,
    User,
    UserRole,
    audience_of,
)

T = TypeVar("T")
_CHUNK = 500  # values in one IN list; SQLite takes 32,766 in a statement


def includes_viewer(viewer_id: Any, viewer_roles: Any) -> ColumnElement[bool]:
    """Whether a row of Broadcast includes this viewer. `viewer_roles` is an expanding parameter."""
    here = BroadcastRole.broadcast_id == Broadcast.id
    any_role = exists().where(here, BroadcastRole.role_name.in_(viewer_roles))
    lacking = exists().where(here, BroadcastRole.role_name.not_in(viewer_roles))
    by_name = exists().where(BroadcastUser.broadcast_id == Broadcast.id, BroadcastUser.user_id == viewer_id)
    return and_(
        case(
            (Broadcast.audience_kind == "everyone", True),
            (and_(Broadcast.audience_kind == "roles", Broadcast.match_all), and_(any_role, ~lacking)),
            (Broadcast.audience_kind == "roles", any_role),
            (Broadcast.audience_kind == "users", by_name),
            else_=False,
        ),
        or_(~Broadcast.has_exceptions, ~_left_out(viewer_id, viewer_roles)),
    )


def _left_out(viewer_id: Any, viewer_roles: Any) -> ColumnElement[bool]:
    role, person = BroadcastExceptRole, BroadcastExceptUser
    return or_(
        exists().where(role.broadcast_id == Broadcast.id, role.role_name.in_(viewer_roles)),
        exists().where(person.broadcast_id == Broadcast.id, person.user_id == viewer_id),
    )


def members_of(broadcast: Broadcast, *, whole: bool = False) -> ColumnElement[bool]:
    """The condition that a User is in the audience of this broadcast now.

    `whole` is for a query that needs every member: SQLite then begins with the people of the roles. Without it, it walks
    through all people and asks of each, which is quicker for the first fifty. (PostgreSQL decides for itself.)
    """
    conditions = [true()]
    if broadcast.audience_kind == "roles":
        conditions.append(_in_base(roles(broadcast.role_names, match_all=broadcast.match_all), whole=whole))
    elif broadcast.audience_kind == "users":
        named = select(BroadcastUser.user_id).where(BroadcastUser.broadcast_id == broadcast.id)
        conditions.append(User.id.in_(named))
    if broadcast.has_exceptions:
        person = BroadcastExceptUser
        left_out = exists().where(person.broadcast_id == broadcast.id, person.user_id == User.id)
        conditions += [~_has_role(broadcast.except_role_names), ~left_out]
    return and_(*conditions)


def of(broadcast: Broadcast) -> Audience:
    """The audience of a stored broadcast. Raises ValueError for a draft whose audience is not chosen yet."""
    return audience_of(broadcast, chosen(broadcast), left_out(broadcast))


def chosen(broadcast: Broadcast) -> list[int]:
    """Ids of the people whom a broadcast names."""
    return _ids(BroadcastUser, broadcast.id) if broadcast.audience_kind == "users" else []


def left_out(broadcast: Broadcast) -> list[int]:
    """Ids of the people whom a broadcast leaves out by name."""
    return _ids(BroadcastExceptUser, broadcast.id) if broadcast.has_exceptions else []


def count(audience: Audience, *, among: Iterable[int] | None = None) -> int:
    """How many enabled people the audience has now; with `among`, how many of these."""
    ids, left_out = _named(audience)
    if among is not None:
        ids = set(among) & ids if ids is not None else set(among)
    if ids is not None:
        return _count_in(_members(audience), ids - left_out)
    return until_people_change(audience, lambda: _count_all(audience, left_out))


def count_those(audience: Audience, condition: ColumnElement[bool]) -> int:
    """How many enabled people of the audience also meet a condition on User."""
    ids, left_out = _named(audience)
    wanted = and_(_members(audience), condition)
    if ids is not None:
        return _count_in(wanted, ids - left_out)
    return _count_in(wanted, None) - _count_in(wanted, left_out)


def until_people_change(what: Hashable, count: Callable[[], T]) -> T:
    """A count that takes long is kept until somebody comes, goes or has another role."""
    version = db.session.scalar(select(PeopleVersion.version))
    return current_app.extensions["counted"].get(("people", what, version), count, lasting=True)


def ids_of(audience: Audience) -> list[int]:
    """Every enabled person of the audience now."""
    ids, left_out = _named(audience)
    query = select(User.id).where(_members(audience))
    if ids is None:
        return sorted(set(db.session.scalars(query)) - left_out)
    found: list[int] = []
    for chunk in _chunks(ids - left_out):
        found += db.session.scalars(query.where(User.id.in_(chunk)))
    return sorted(found)


def sample(audience: Audience, limit: int = 5) -> list[User]:
    """The first few people of the audience by id."""
    ids, left_out = _named(audience)
    query: Select = select(User).where(_members(audience), User.id.not_in(sorted(left_out)[:_CHUNK])).order_by(User.id)
    if ids is not None:
        query = query.where(User.id.in_(sorted(ids - left_out)[:_CHUNK]))
    found = db.session.scalars(query.limit(limit + len(left_out) if len(left_out) > _CHUNK else limit))
    return [user for user in found if user.id not in left_out][:limit]


def saved() -> Sequence[SavedAudience]:
    """Named audiences, by name."""
    return db.session.scalars(select(SavedAudience).order_by(func.lower(SavedAudience.name))).all()


def saved_by_id(saved_id: int) -> SavedAudience | None:
    return db.session.get(SavedAudience, saved_id)


def _named(audience: Audience) -> tuple[set[int] | None, set[int]]:
    """The ids to which an audience is limited (None: no limit), and the ids that are left out."""
    base, left_out = (audience.base, audience.ids) if isinstance(audience, Except) else (audience, ())
    return set(base.ids) if isinstance(base, Users) else None, set(left_out)


def _members(audience: Audience) -> ColumnElement[bool]:
    """The rest of it: the condition that a User is enabled, and is in it by their roles."""
    base, left_out = (audience.base, audience.roles) if isinstance(audience, Except) else (audience, ())
    conditions = [User.disabled_at.is_(None), _in_base(base)]
    if left_out:
        conditions.append(~_has_role(left_out))
    return and_(*conditions)


def _in_base(base: Everyone | Roles | Users, *, whole: bool = False) -> ColumnElement[bool]:
    if not isinstance(base, Roles):
        return true()
    if base.match_all:
        return and_(*(_has_role([name], whole=whole) for name in sorted(base.names)))
    return _has_role(base.names, whole=whole)


def _has_role(names: Iterable[str], *, whole: bool = False) -> ColumnElement[bool]:
    has = aliased(UserRole)  # the query around may have a UserRole of its own
    is_named = has.role_name.in_(sorted(names))
    if whole:
        return User.id.in_(select(has.user_id).where(is_named))
    return exists().where(has.user_id == User.id, is_named)


def _count_all(audience: Audience, left_out: set[int]) -> int:
    """Without those left out by name. From the role's side where that is enough, less the few who are disabled."""
    if isinstance(audience, Roles) and not audience.match_all:
        have = select(func.count(distinct(UserRole.user_id))).where(UserRole.role_name.in_(sorted(audience.names)))
        disabled = have.where(UserRole.user_id.in_(disabled_ids()))
        return db.session.scalar(select(have.scalar_subquery() - disabled.scalar_subquery()))
    members = _members(audience)
    return _count_in(members, None) - _count_in(members, left_out)


def disabled_ids() -> Select:
    """For IN: the database reads the few of them first, by their index."""
    return select(User.id).where(User.disabled_at.is_not(None))


def _count_in(members: ColumnElement[bool], ids: set[int] | None) -> int:
    query = select(func.count(User.id)).where(members)
    if ids is None:
        return db.session.scalar(query)
    if not ids:
        return 0
    return db.session.scalar(query.where(id_sets.is_one_of(User.id, ids)), execution_options=id_sets.how(ids))


def _ids(table: type, broadcast_id: int) -> list[int]:
    return list(db.session.scalars(select(table.user_id).where(table.broadcast_id == broadcast_id)))


def _chunks(values: Iterable[int]) -> Iterable[list[int]]:
    ordered = sorted(values)
    return (ordered[start : start + _CHUNK] for start in range(0, len(ordered), _CHUNK))
