"""The rule of `broadcast.domain.audience` in SQL: for a stored broadcast and one viewer, and for an audience and all people.

Lists of ids go in chunks, so that an audience of 50,000 people by name fits into statements of every database.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Select, and_, case, delete, distinct, exists, func, or_, select, true
from sqlalchemy.orm import Session, aliased

from broadcast.base.cooperative import Breath
from broadcast.domain.audience import Audience, Everyone, Except, Roles, Users, roles
from broadcast.store.database import IN_A_THREAD, db
from broadcast.store.fast import id_sets
from broadcast.store.fast.bulk_insert import insert_many
from broadcast.store.fast.count_cache import COUNT_CACHE
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
    return _includes(any_role, lacking, by_name, _left_out(viewer_id, viewer_roles))


def _includes(
    any_role: ColumnElement[bool],
    lacking: ColumnElement[bool],
    by_name: ColumnElement[bool],
    left_out: ColumnElement[bool],
) -> ColumnElement[bool]:
    """The rule itself: what an audience of each kind asks of somebody's roles (has any, lacks one) and name."""
    return and_(
        case(
            (Broadcast.audience_kind == "everyone", True),
            (and_(Broadcast.audience_kind == "roles", Broadcast.match_all), and_(any_role, ~lacking)),
            (Broadcast.audience_kind == "roles", any_role),
            (Broadcast.audience_kind == "users", by_name),
            else_=False,
        ),
        or_(~Broadcast.has_exceptions, ~left_out),
    )


def _left_out(viewer_id: Any, viewer_roles: Any) -> ColumnElement[bool]:
    role, person = BroadcastExceptRole, BroadcastExceptUser
    return or_(
        exists().where(role.broadcast_id == Broadcast.id, role.role_name.in_(viewer_roles)),
        exists().where(person.broadcast_id == Broadcast.id, person.user_id == viewer_id),
    )


def includes_person(user_id: Any, roles: Any, is_theirs: Callable[[Any], ColumnElement[bool]]) -> ColumnElement[bool]:
    """Whether a row of Broadcast includes the person of another row of the query.

    `roles` is UserRole or another table of role names, `is_theirs` the condition that a row of it is this person's.
    """
    here, has = BroadcastRole.broadcast_id == Broadcast.id, aliased(roles)
    role, person = BroadcastExceptRole, BroadcastExceptUser
    is_named = and_(is_theirs(has), has.role_name == BroadcastRole.role_name)
    # each says what is its own: SQLAlchemy finds by itself only what stands in the query next around it
    any_role = exists().where(here, is_named).correlate_except(BroadcastRole, has)
    lacking = exists().where(here, ~exists().where(is_named).correlate_except(has)).correlate_except(BroadcastRole)
    named = and_(BroadcastUser.broadcast_id == Broadcast.id, BroadcastUser.user_id == user_id)
    by_name = exists().where(named).correlate_except(BroadcastUser)
    by_role = and_(role.broadcast_id == Broadcast.id, is_theirs(has), has.role_name == role.role_name)
    one_by_one = and_(person.broadcast_id == Broadcast.id, person.user_id == user_id)
    left_out = or_(
        exists().where(by_role).correlate_except(role, has), exists().where(one_by_one).correlate_except(person)
    )
    return _includes(any_role, lacking, by_name, left_out)


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


def name_people(
    session: Session, table: type[BroadcastUser | BroadcastExceptUser], broadcast_id: int, ids: Iterable[int]
) -> None:
    """Write down who is chosen or left out by name; the broadcast is stored. Lets other greenlets run when they are many."""
    rows = [{"broadcast_id": broadcast_id, "user_id": user_id} for user_id in sorted(ids)]
    insert_many(session, table.__table__, rows)


def name_nobody(session: Session, broadcast_id: int) -> None:
    """Take away who is chosen and who is left out by name."""
    for table in (BroadcastUser, BroadcastExceptUser):
        statement = delete(table.__table__).where(table.broadcast_id == broadcast_id)
        session.execute(statement, execution_options=IN_A_THREAD)


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
    return COUNT_CACHE.current.get(("people", what, version), count, lasting=True)


def count_of(rows: Iterable[Broadcast]) -> dict[int, int]:
    """How many enabled people each of these broadcasts includes now, by its id."""
    named, known, found = [], {}, {}
    for row in rows:
        if row.audience_kind == "users" and not row.has_exceptions:
            named.append(row.id)
            continue
        audience = of(row)
        if audience not in known:
            known[audience] = count(audience)
        found[row.id] = known[audience]
    enabled = select(BroadcastUser.broadcast_id, func.count()).join(User, User.id == BroadcastUser.user_id)
    enabled = enabled.where(BroadcastUser.broadcast_id.in_(named), User.disabled_at.is_(None))
    counted = dict(map(tuple, db.session.execute(enabled.group_by(BroadcastUser.broadcast_id)))) if named else {}
    return found | {broadcast_id: counted.get(broadcast_id, 0) for broadcast_id in named}


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


class Summary(NamedTuple):
    """A named audience without the people it names: how many they are. `target_type` and `target_match` as in public fields."""

    id: int
    name: str
    target_type: str
    target_match: str | None
    roles: list[str] | None
    people: int | None
    except_roles: list[str] | None
    except_people: int | None


def saved() -> list[Summary]:
    """Named audiences, by name."""
    target, count = SavedAudience.target, func.json_array_length
    kind = target["targetType"].as_string()
    query = select(
        SavedAudience.id,
        SavedAudience.name,
        kind,
        target["targetMatch"].as_string(),
        case((kind == "ROLE", target["targetIds"])),
        case((kind == "SELECTED", count(target["targetIds"]))),
        target["exceptRoles"],
        count(target["exceptIds"]),
    )
    return [Summary(*row) for row in db.session.execute(query.order_by(func.lower(SavedAudience.name)))]


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
    """Lets other greenlets run between two of many."""
    ordered, breath = sorted(values), Breath()
    for start in range(0, len(ordered), _CHUNK):
        yield ordered[start : start + _CHUNK]
        breath.take()
