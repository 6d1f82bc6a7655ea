"""The rule of `broadcast.domain.audience` in SQL: a stored broadcast and one viewer, or an audience and all users.

Lists of ids are split into chunks, so that an audience of 50,000 named users fits into statements of every database.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any, Literal, TypeVar

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Integer,
    Row,
    Select,
    and_,
    any_,
    case,
    cast,
    delete,
    distinct,
    exists,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.orm import Session, aliased

from broadcast.base.cooperative import Yielder
from broadcast.domain.audience import (
    Audience,
    EveryoneAudience,
    RoleAudience,
    UserAudience,
    make_role_audience,
    split_exclusions,
)
from broadcast.store.database import db, execute_in_chunks
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.fast.bulk_insert import insert_many
from broadcast.store.fast.count_cache import COUNT_CACHE
from broadcast.store.models import (
    Broadcast,
    BroadcastExceptRole,
    BroadcastExceptUser,
    BroadcastRole,
    BroadcastUser,
    LogHead,
    MembershipVersion,
    SavedAudience,
    User,
    UserRole,
    build_audience,
)

T = TypeVar("T")
UserCondition = ColumnElement[bool]  # a condition on the row of a User
_MAX_IDS_WITHOUT_THREAD = 2000  # with more, counting would block the worker on SQLite


def includes_viewer(viewer_id: Any, viewer_roles: Any) -> ColumnElement[bool]:
    """Whether a row of Broadcast includes this viewer. `viewer_roles` is an expanding parameter."""

    def has_row(table: type, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        return exists().where(table.broadcast_id == Broadcast.id, *conditions)

    return _includes(
        has_any_role=has_row(BroadcastRole, BroadcastRole.role_name.in_(viewer_roles)),
        lacks_a_role=has_row(BroadcastRole, BroadcastRole.role_name.not_in(viewer_roles)),
        is_selected=has_row(BroadcastUser, BroadcastUser.user_id == viewer_id),
        is_excluded=or_(
            has_row(BroadcastExceptRole, BroadcastExceptRole.role_name.in_(viewer_roles)),
            has_row(BroadcastExceptUser, BroadcastExceptUser.user_id == viewer_id),
        ),
    )


def includes_user(
    user_id: Any, role_table: Any, is_role_of_user: Callable[[Any], ColumnElement[bool]]
) -> ColumnElement[bool]:
    """Whether a row of Broadcast includes the user of another row of the query.

    `role_table` is UserRole or another table of role names; `is_role_of_user` limits it to this user's rows.
    """
    user_role = aliased(role_table)

    def is_held(table: type) -> ColumnElement[bool]:
        return and_(is_role_of_user(user_role), user_role.role_name == table.role_name)

    def has_row(table: type, *conditions: ColumnElement[bool], also: Sequence[Any] = ()) -> ColumnElement[bool]:
        """Names its own tables, as SQLAlchemy correlates only with the directly enclosing query."""
        return exists().where(table.broadcast_id == Broadcast.id, *conditions).correlate_except(table, *also)

    return _includes(
        has_any_role=has_row(BroadcastRole, is_held(BroadcastRole), also=[user_role]),
        lacks_a_role=has_row(BroadcastRole, ~exists().where(is_held(BroadcastRole)).correlate_except(user_role)),
        is_selected=has_row(BroadcastUser, BroadcastUser.user_id == user_id),
        is_excluded=or_(
            has_row(BroadcastExceptRole, is_held(BroadcastExceptRole), also=[user_role]),
            has_row(BroadcastExceptUser, BroadcastExceptUser.user_id == user_id),
        ),
    )


def _includes(
    *,
    has_any_role: ColumnElement[bool],
    lacks_a_role: ColumnElement[bool],
    is_selected: ColumnElement[bool],
    is_excluded: ColumnElement[bool],
) -> ColumnElement[bool]:
    """The rule itself, from conditions on a user's roles (has any, lacks one) and name."""
    return and_(
        case(
            (Broadcast.audience_kind == "everyone", True),
            (and_(Broadcast.audience_kind == "roles", Broadcast.match_all), and_(has_any_role, ~lacks_a_role)),
            (Broadcast.audience_kind == "roles", has_any_role),
            (Broadcast.audience_kind == "users", is_selected),
            else_=False,
        ),
        or_(~Broadcast.has_exceptions, ~is_excluded),
    )


def is_member_of(broadcast: Broadcast, *, should_start_from_roles: bool = False) -> ColumnElement[bool]:
    """The condition that a User is in the audience of this broadcast now.

    `should_start_from_roles` is for a query that needs every member: SQLite then starts from the users of the roles.
    Without it, SQLite checks all users one by one, which is faster for the first fifty. (PostgreSQL decides for
    itself.)
    """
    conditions = [true()]
    if broadcast.audience_kind == "roles":
        base = make_role_audience(broadcast.role_names, match_all=broadcast.match_all)
        conditions.append(_is_in_base(base, should_start_from_roles=should_start_from_roles))
    elif broadcast.audience_kind == "users":
        selected_ids = select(BroadcastUser.user_id).where(BroadcastUser.broadcast_id == broadcast.id)
        conditions.append(User.id.in_(selected_ids))
    if broadcast.has_exceptions:
        is_row_of_user = (BroadcastExceptUser.broadcast_id == broadcast.id, BroadcastExceptUser.user_id == User.id)
        conditions += [~_has_role(broadcast.except_role_names), ~exists().where(*is_row_of_user)]
    return and_(*conditions)


def get_audience(broadcast: Broadcast) -> Audience:
    """The audience of a stored broadcast. Raises ValueError for a draft whose audience is not chosen yet."""
    return build_audience(
        broadcast.audience_kind,
        broadcast.role_names,
        list_selected_user_ids(broadcast),
        match_all=broadcast.match_all,
        except_role_names=broadcast.except_role_names,
        except_user_ids=list_excluded_user_ids(broadcast),
    )


def list_selected_user_ids(broadcast: Broadcast) -> list[int]:
    return _list_named_ids(BroadcastUser, broadcast.id) if broadcast.audience_kind == "users" else []


def list_excluded_user_ids(broadcast: Broadcast) -> list[int]:
    return _list_named_ids(BroadcastExceptUser, broadcast.id) if broadcast.has_exceptions else []


def add_named_users(
    session: Session, table: type[BroadcastUser | BroadcastExceptUser], broadcast_id: int, user_ids: Iterable[int]
) -> None:
    """Store who is selected or excluded by name, for a stored broadcast. Lets other greenlets run for long lists."""
    rows = [{"broadcast_id": broadcast_id, "user_id": user_id} for user_id in sorted(user_ids)]
    insert_many(session, table.__table__, rows)


def delete_named_users(session: Session, broadcast_id: int) -> None:
    for table in (BroadcastUser, BroadcastExceptUser):
        statement = delete(table.__table__).where(table.broadcast_id == broadcast_id)
        session.execute(statement, execution_options=RUN_IN_THREAD)


def count(audience: Audience, *, among_ids: Iterable[int] | None = None) -> int:
    """How many enabled users the audience has now; with `among_ids`, how many of these."""
    ids, excluded_ids = _split_named_ids(audience)
    if among_ids is not None:
        ids = set(among_ids) & ids if ids is not None else set(among_ids)
    if ids is not None:
        return _count_users(_is_enabled_member(audience), ids - excluded_ids)
    return cache_until_membership_changes(audience, lambda: _count_unlimited(audience, excluded_ids))


def count_matching(audience: Audience, condition: ColumnElement[bool]) -> int:
    """How many enabled users of the audience also meet a condition on User."""
    ids, excluded_ids = _split_named_ids(audience)
    is_counted = and_(_is_enabled_member(audience), condition)
    if ids is not None:
        return _count_users(is_counted, ids - excluded_ids)
    return _count_users(is_counted, None) - _count_users(is_counted, excluded_ids)


def count_groups(audience: Audience, *columns: ColumnElement[Any]) -> Counter[tuple[Any, ...]]:
    """How many enabled users of the audience there are with each combination of these columns of User."""
    ids, excluded_ids = _split_named_ids(audience)
    members = select(User.id.label("user_id"), *(column.label(f"c{n}") for n, column in enumerate(columns)))
    members = members.where(_is_enabled_member(audience)).subquery()
    keys = [members.c[f"c{n}"] for n in range(len(columns))]
    query = select(*keys, func.count()).group_by(*keys)
    if ids is not None:
        return _sum_groups(execute_in_chunks(db.session(), query, members.c.user_id, ids - excluded_ids))
    groups = _sum_groups(db.session.execute(query, execution_options=RUN_IN_THREAD))
    groups.subtract(_sum_groups(execute_in_chunks(db.session(), query, members.c.user_id, excluded_ids)))
    return +groups


def _sum_groups(rows: Iterable[Row]) -> Counter[tuple[Any, ...]]:
    groups, yielder = Counter(), Yielder()
    for *key, count in rows:
        groups[tuple(key)] += count
        yielder.maybe_yield()
    return groups


def list_members(
    audience: Audience, condition: UserCondition, *columns: ColumnElement[Any], after: int, limit: int
) -> list[Row]:
    """The ids, with these columns, of the next enabled users of the audience that also meet a condition, by id."""
    ids, excluded_ids = _split_named_ids(audience)
    query = select(User.id, *columns).where(_is_enabled_member(audience), condition, User.id > after)
    if ids is not None:
        query = query.where(_is_one_of(User.id, ids - excluded_ids))
    elif excluded_ids:
        query = query.where(~_is_one_of(User.id, excluded_ids))
    return list(db.session.execute(query.order_by(User.id).limit(limit), execution_options=RUN_IN_THREAD))


def cache_until_membership_changes(cache_key: Hashable, count: Callable[[], T]) -> T:
    """Cache an expensive count until users are added or removed, or roles change.

    A failover that loses commits gives their versions out again, to other changes; the epoch tells them apart.
    """
    epoch = select(LogHead.epoch).scalar_subquery()
    version = tuple(db.session.execute(select(MembershipVersion.version, epoch)).one())
    return COUNT_CACHE.current.get(("people", cache_key, version), count, is_permanent=True)


def count_by_broadcast(rows: Collection[Broadcast]) -> dict[int, int]:
    """How many enabled users each broadcast includes now, by its id."""
    named_ids = [row.id for row in rows if row.audience_kind == "users" and not row.has_exceptions]
    audiences_by_id = {row.id: get_audience(row) for row in rows if row.id not in named_ids}
    counts_by_audience = {audience: count(audience) for audience in set(audiences_by_id.values())}
    counts = {broadcast_id: counts_by_audience[audience] for broadcast_id, audience in audiences_by_id.items()}
    if named_ids:
        query = select(BroadcastUser.broadcast_id, func.count()).join(User, User.id == BroadcastUser.user_id)
        query = query.where(BroadcastUser.broadcast_id.in_(named_ids), User.disabled_at.is_(None))
        counts |= dict.fromkeys(named_ids, 0)
        counts |= dict(map(tuple, db.session.execute(query.group_by(BroadcastUser.broadcast_id))))
    return counts


def list_user_ids(audience: Audience) -> list[int]:
    """Ids of all enabled users of the audience now."""
    ids, excluded_ids = _split_named_ids(audience)
    query = select(User.id).where(_is_enabled_member(audience))
    if ids is None:
        return sorted(set(db.session.scalars(query)) - excluded_ids)
    return sorted(user_id for (user_id,) in execute_in_chunks(db.session, query, User.id, ids - excluded_ids))


def list_sample(audience: Audience, limit: int = 5) -> list[User]:
    """The first few users of the audience by id."""
    ids, excluded_ids = _split_named_ids(audience)
    query = select(User.id).where(_is_enabled_member(audience)).order_by(User.id).limit(limit + len(excluded_ids))
    if ids is not None:
        query = query.where(_is_one_of(User.id, ids))
    sample_ids = [user_id for user_id in db.session.scalars(query) if user_id not in excluded_ids][:limit]
    return list(db.session.scalars(select(User).where(User.id.in_(sample_ids)).order_by(User.id)))


def list_saved() -> list[Row]:
    """Saved audiences, by name: the public fields, with the number of users instead of those named."""
    target, json_length = SavedAudience.target, func.json_array_length
    kind = target["targetType"].as_string()
    query = select(
        SavedAudience.id,
        SavedAudience.name,
        kind.label("target_type"),
        target["targetMatch"].as_string().label("target_match"),
        case((kind == "ROLE", target["targetIds"])).label("roles"),
        case((kind == "SELECTED", json_length(target["targetIds"]))).label("people"),
        target["exceptRoles"].label("except_roles"),
        json_length(target["exceptIds"]).label("except_people"),
    )
    return list(db.session.execute(query.order_by(func.lower(SavedAudience.name))))


def get_saved(saved_id: int) -> SavedAudience | None:
    return db.session.get(SavedAudience, saved_id)


def replace_in_saved(session: Session, target_type: Literal["ROLE", "SELECTED"], replace: Callable[[Any], Any]) -> None:
    """Replace roles or users in saved audiences; `replace` returns the new name for each name."""
    except_key = {"ROLE": "exceptRoles", "SELECTED": "exceptIds"}[target_type]
    for row in session.scalars(select(SavedAudience)):
        keys = ["targetIds", except_key] if row.target.get("targetType") == target_type else [except_key]
        row.target = row.target | {key: [*map(replace, row.target[key])] for key in keys if row.target.get(key)}


def _split_named_ids(audience: Audience) -> tuple[set[int] | None, set[int]]:
    """The ids to which an audience is limited (None: no limit), and the excluded ids."""
    base, _, excluded_ids = split_exclusions(audience)
    return set(base.ids) if isinstance(base, UserAudience) else None, set(excluded_ids)


def _is_enabled_member(audience: Audience) -> ColumnElement[bool]:
    """The role part of the rule: the condition that a User is enabled and is included by their roles."""
    base, excluded_roles, _ = split_exclusions(audience)
    conditions = [User.disabled_at.is_(None), _is_in_base(base)]
    if excluded_roles:
        conditions.append(~_has_role(excluded_roles))
    return and_(*conditions)


def _is_in_base(
    base: EveryoneAudience | RoleAudience | UserAudience, *, should_start_from_roles: bool = False
) -> ColumnElement[bool]:
    if not isinstance(base, RoleAudience):
        return true()
    groups = [[name] for name in base.names] if base.match_all else [base.names]
    return and_(*(_has_role(names, should_start_from_roles=should_start_from_roles) for names in groups))


def _has_role(names: Iterable[str], *, should_start_from_roles: bool = False) -> ColumnElement[bool]:
    user_role = aliased(UserRole)  # the outer query may have its own UserRole
    is_named = user_role.role_name.in_(sorted(names))
    if should_start_from_roles:
        return User.id.in_(select(user_role.user_id).where(is_named))
    return exists().where(user_role.user_id == User.id, is_named)


def _count_unlimited(audience: Audience, excluded_ids: set[int]) -> int:
    """Count members, without those excluded by name; from the role's side where possible, minus the few disabled."""
    if isinstance(audience, RoleAudience) and not audience.match_all:
        holders = select(func.count(distinct(UserRole.user_id))).where(UserRole.role_name.in_(sorted(audience.names)))
        disabled = holders.where(UserRole.user_id.in_(select_disabled_ids()))
        return db.session.scalar(select(holders.scalar_subquery() - disabled.scalar_subquery()))
    members = _is_enabled_member(audience)
    return _count_users(members, None) - _count_users(members, excluded_ids)


def select_disabled_ids() -> Select:
    """For IN: the database reads the few disabled users first, by their index."""
    return select(User.id).where(User.disabled_at.is_not(None))


def _count_users(condition: ColumnElement[bool], ids: set[int] | None) -> int:
    query = select(func.count(User.id)).where(condition)
    if ids is None:
        return db.session.scalar(query)
    if not ids:
        return 0
    options = RUN_IN_THREAD if len(ids) > _MAX_IDS_WITHOUT_THREAD else {}
    return db.session.scalar(query.where(_is_one_of(User.id, ids)), execution_options=options)


def _is_one_of(column: Any, ids: Collection[int]) -> ColumnElement[bool]:
    """Very many ids go as one parameter, so that fifty thousand cost one round trip, not a hundred."""
    if db.engine.dialect.name == "sqlite":
        values = func.json_each(json.dumps(sorted(ids))).table_valued("value")
        return column.in_(select(cast(values.c.value, Integer)))
    return column == any_(literal(sorted(ids), ARRAY(BigInteger)))


def select_ids(session: Session, ids: Collection[int]) -> ColumnElement[int]:
    """A column with these ids, for a SELECT from nothing else: they go as one parameter."""
    if session.get_bind().dialect.name == "sqlite":
        return cast(func.json_each(json.dumps(sorted(ids))).table_valued("value").c.value, Integer)
    return func.unnest(literal(sorted(ids), ARRAY(BigInteger))).column_valued("user_id")


def _list_named_ids(table: type, broadcast_id: int) -> list[int]:
    return list(db.session.scalars(select(table.user_id).where(table.broadcast_id == broadcast_id)))
