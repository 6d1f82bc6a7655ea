"""The rule of `broadcast.domain.audience` in SQL: a stored broadcast and one viewer, or an audience and all users.

Lists of ids are split into chunks, so that an audience of 50,000 named users fits into statements of every database.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Select, and_, case, delete, distinct, exists, func, or_, select, true
from sqlalchemy.orm import Session, aliased

from broadcast.base.cooperative import split_into_chunks
from broadcast.domain.audience import (
    Audience,
    EveryoneAudience,
    RoleAudience,
    UserAudience,
    make_role_audience,
    split_exclusions,
)
from broadcast.store.database import MAX_IN_VALUES, db
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.fast import id_sets
from broadcast.store.fast.bulk_insert import insert_many
from broadcast.store.fast.count_cache import COUNT_CACHE
from broadcast.store.models import (
    Broadcast,
    BroadcastExceptRole,
    BroadcastExceptUser,
    BroadcastRole,
    BroadcastUser,
    MembershipVersion,
    SavedAudience,
    User,
    UserRole,
    build_audience,
)

T = TypeVar("T")


def includes_viewer(viewer_id: Any, viewer_roles: Any) -> ColumnElement[bool]:
    """Whether a row of Broadcast includes this viewer. `viewer_roles` is an expanding parameter."""
    is_row_of_broadcast = BroadcastRole.broadcast_id == Broadcast.id
    has_any_role = exists().where(is_row_of_broadcast, BroadcastRole.role_name.in_(viewer_roles))
    lacks_a_role = exists().where(is_row_of_broadcast, BroadcastRole.role_name.not_in(viewer_roles))
    is_selected = exists().where(BroadcastUser.broadcast_id == Broadcast.id, BroadcastUser.user_id == viewer_id)
    return _includes(has_any_role, lacks_a_role, is_selected, _is_excluded(viewer_id, viewer_roles))


def _includes(
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


def _is_excluded(viewer_id: Any, viewer_roles: Any) -> ColumnElement[bool]:
    excluded_role, excluded_user = BroadcastExceptRole, BroadcastExceptUser
    return or_(
        exists().where(excluded_role.broadcast_id == Broadcast.id, excluded_role.role_name.in_(viewer_roles)),
        exists().where(excluded_user.broadcast_id == Broadcast.id, excluded_user.user_id == viewer_id),
    )


def includes_user(
    user_id: Any, role_table: Any, is_role_of_user: Callable[[Any], ColumnElement[bool]]
) -> ColumnElement[bool]:
    """Whether a row of Broadcast includes the user of another row of the query.

    `role_table` is UserRole or another table of role names; `is_role_of_user` limits it to this user's rows.
    """
    is_row_of_broadcast, user_role = BroadcastRole.broadcast_id == Broadcast.id, aliased(role_table)
    excluded_role, excluded_user = BroadcastExceptRole, BroadcastExceptUser
    has_this_role = and_(is_role_of_user(user_role), user_role.role_name == BroadcastRole.role_name)
    # each names its own tables: SQLAlchemy correlates only with the directly enclosing query
    has_any_role = exists().where(is_row_of_broadcast, has_this_role).correlate_except(BroadcastRole, user_role)
    lacks_a_role = (
        exists()
        .where(is_row_of_broadcast, ~exists().where(has_this_role).correlate_except(user_role))
        .correlate_except(BroadcastRole)
    )
    is_selected_row = and_(BroadcastUser.broadcast_id == Broadcast.id, BroadcastUser.user_id == user_id)
    is_selected = exists().where(is_selected_row).correlate_except(BroadcastUser)
    is_excluded_by_role = and_(
        excluded_role.broadcast_id == Broadcast.id,
        is_role_of_user(user_role),
        user_role.role_name == excluded_role.role_name,
    )
    is_excluded_by_name = and_(excluded_user.broadcast_id == Broadcast.id, excluded_user.user_id == user_id)
    is_excluded = or_(
        exists().where(is_excluded_by_role).correlate_except(excluded_role, user_role),
        exists().where(is_excluded_by_name).correlate_except(excluded_user),
    )
    return _includes(has_any_role, lacks_a_role, is_selected, is_excluded)


def is_member_of(broadcast: Broadcast, *, should_start_from_roles: bool = False) -> ColumnElement[bool]:
    """The condition that a User is in the audience of this broadcast now.

    `should_start_from_roles` is for a query that needs every member: SQLite then starts from the users of the roles.
    Without it, SQLite checks all users one by one, which is faster for the first fifty. (PostgreSQL decides for
    itself.)
    """
    conditions = [true()]
    if broadcast.audience_kind == "roles":
        conditions.append(
            _is_in_base(
                make_role_audience(broadcast.role_names, match_all=broadcast.match_all),
                should_start_from_roles=should_start_from_roles,
            )
        )
    elif broadcast.audience_kind == "users":
        selected_ids = select(BroadcastUser.user_id).where(BroadcastUser.broadcast_id == broadcast.id)
        conditions.append(User.id.in_(selected_ids))
    if broadcast.has_exceptions:
        excluded_user = BroadcastExceptUser
        is_excluded = exists().where(excluded_user.broadcast_id == broadcast.id, excluded_user.user_id == User.id)
        conditions += [~_has_role(broadcast.except_role_names), ~is_excluded]
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
    """Ids of the users selected by name."""
    return _list_named_ids(BroadcastUser, broadcast.id) if broadcast.audience_kind == "users" else []


def list_excluded_user_ids(broadcast: Broadcast) -> list[int]:
    """Ids of the users excluded by name."""
    return _list_named_ids(BroadcastExceptUser, broadcast.id) if broadcast.has_exceptions else []


def add_named_users(
    session: Session, table: type[BroadcastUser | BroadcastExceptUser], broadcast_id: int, user_ids: Iterable[int]
) -> None:
    """Store who is selected or excluded by name, for a stored broadcast. Lets other greenlets run for long lists."""
    rows = [{"broadcast_id": broadcast_id, "user_id": user_id} for user_id in sorted(user_ids)]
    insert_many(session, table.__table__, rows)


def delete_named_users(session: Session, broadcast_id: int) -> None:
    """Delete the rows of users selected or excluded by name."""
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


def cache_until_membership_changes(cache_key: Hashable, count: Callable[[], T]) -> T:
    """Cache an expensive count until users are added or removed, or roles change."""
    version = db.session.scalar(select(MembershipVersion.version))
    return COUNT_CACHE.current.get(("people", cache_key, version), count, is_permanent=True)


def count_by_broadcast(rows: Iterable[Broadcast]) -> dict[int, int]:
    """How many enabled users each broadcast includes now, by its id."""
    named_ids, counts_by_audience, counts = [], {}, {}
    for row in rows:
        if row.audience_kind == "users" and not row.has_exceptions:
            named_ids.append(row.id)
            continue
        audience = get_audience(row)
        if audience not in counts_by_audience:
            counts_by_audience[audience] = count(audience)
        counts[row.id] = counts_by_audience[audience]
    enabled_query = select(BroadcastUser.broadcast_id, func.count()).join(User, User.id == BroadcastUser.user_id)
    enabled_query = enabled_query.where(BroadcastUser.broadcast_id.in_(named_ids), User.disabled_at.is_(None))
    named_counts = (
        dict(map(tuple, db.session.execute(enabled_query.group_by(BroadcastUser.broadcast_id)))) if named_ids else {}
    )
    return counts | {broadcast_id: named_counts.get(broadcast_id, 0) for broadcast_id in named_ids}


def list_user_ids(audience: Audience) -> list[int]:
    """Ids of all enabled users of the audience now."""
    ids, excluded_ids = _split_named_ids(audience)
    query = select(User.id).where(_is_enabled_member(audience))
    if ids is None:
        return sorted(set(db.session.scalars(query)) - excluded_ids)
    user_ids: list[int] = []
    for chunk in split_into_chunks(sorted(ids - excluded_ids), MAX_IN_VALUES):
        user_ids += db.session.scalars(query.where(User.id.in_(chunk)))
    return sorted(user_ids)


def list_sample(audience: Audience, limit: int = 5) -> list[User]:
    """The first few users of the audience by id."""
    ids, excluded_ids = _split_named_ids(audience)
    query: Select = (
        select(User)
        .where(_is_enabled_member(audience), User.id.not_in(sorted(excluded_ids)[:MAX_IN_VALUES]))
        .order_by(User.id)
    )
    if ids is not None:
        query = query.where(User.id.in_(sorted(ids - excluded_ids)[:MAX_IN_VALUES]))
    users = db.session.scalars(query.limit(limit + len(excluded_ids) if len(excluded_ids) > MAX_IN_VALUES else limit))
    return [user for user in users if user.id not in excluded_ids][:limit]


class SavedAudienceSummary(NamedTuple):
    """A saved audience, with the number of users it names. `target_type` and `target_match` as in the public fields."""

    id: int
    name: str
    target_type: str
    target_match: str | None
    roles: list[str] | None
    people: int | None
    except_roles: list[str] | None
    except_people: int | None


def list_saved() -> list[SavedAudienceSummary]:
    """Saved audiences, by name."""
    target, json_length = SavedAudience.target, func.json_array_length
    kind = target["targetType"].as_string()
    query = select(
        SavedAudience.id,
        SavedAudience.name,
        kind,
        target["targetMatch"].as_string(),
        case((kind == "ROLE", target["targetIds"])),
        case((kind == "SELECTED", json_length(target["targetIds"]))),
        target["exceptRoles"],
        json_length(target["exceptIds"]),
    )
    return [SavedAudienceSummary(*row) for row in db.session.execute(query.order_by(func.lower(SavedAudience.name)))]


def get_saved(saved_id: int) -> SavedAudience | None:
    return db.session.get(SavedAudience, saved_id)


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
    if base.match_all:
        return and_(
            *(_has_role([name], should_start_from_roles=should_start_from_roles) for name in sorted(base.names))
        )
    return _has_role(base.names, should_start_from_roles=should_start_from_roles)


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
    return db.session.scalar(
        query.where(id_sets.is_one_of(User.id, ids)), execution_options=id_sets.get_execution_options(ids)
    )


def _list_named_ids(table: type, broadcast_id: int) -> list[int]:
    return list(db.session.scalars(select(table.user_id).where(table.broadcast_id == broadcast_id)))
