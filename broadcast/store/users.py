"""Queries on users, roles, sessions and tokens."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, Select, bindparam, exists, func, insert, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from broadcast.base.cooperative import split_into_chunks
from broadcast.domain.audience import EveryoneAudience
from broadcast.domain.message import parse_id_or_username
from broadcast.domain.preferences import Preferences, parse_stored_preferences
from broadcast.domain.usernames import normalize_username
from broadcast.store import audiences, mutes, user_search
from broadcast.store.database import MAX_IN_VALUES, ROW_LOCK, db
from broadcast.store.fast.prepared_query import PreparedQuery
from broadcast.store.models import (
    ApiToken,
    LinkedIdentity,
    MembershipVersion,
    Role,
    User,
    UserRole,
    UserSession,
)

_preferences_query = PreparedQuery(select(User.preferences).where(User.id == bindparam("user_id", type_=BigInteger)))


def get(user_id: int) -> User | None:
    return db.session.get(User, user_id)


def get_by_username(username: str) -> User | None:
    if "\0" in username:
        return None  # PostgreSQL cannot store such text and raises an error
    return db.session.scalar(select(User).where(User.username == normalize_username(username)))


def get_id_by_external_identity(session: Session, issuer: str, subject: str) -> int | None:
    """The id of the user linked to that account at the provider."""
    row = session.get(LinkedIdentity, (issuer, subject))
    return row and row.user_id


def get_external_identity(user_id: int, issuer: str) -> LinkedIdentity | None:
    """The user's linked account at that provider."""
    is_wanted = (LinkedIdentity.user_id == user_id, LinkedIdentity.issuer == issuer)
    return db.session.scalar(select(LinkedIdentity).where(*is_wanted))


def find(name: int | str) -> User | None:
    """The enabled user with this id or username."""
    resolved_ids = (
        resolve_ids([parse_id_or_username(name.strip().lower()) if isinstance(name, str) else name])
        if _is_storable(name)
        else {}
    )
    return get(next(iter(resolved_ids.values()))) if resolved_ids else None


def get_preferences(user_id: int) -> Preferences:
    """The user's alert preferences."""
    row = _preferences_query.fetch_first({"user_id": user_id})
    return parse_stored_preferences((row and row[0]) or {})


def set_preferences(session: Session, user_id: int, preferences: Preferences) -> None:
    session.execute(
        update(User)
        .where(User.id == user_id)
        .values(preferences=preferences.to_json())
        .execution_options(synchronize_session=False)
    )
    mutes.replace_mutes(session, user_id, preferences)


def get_first_admin(*, excluded_user_id: int | None = None) -> User | None:
    """The oldest enabled administrator other than `excluded_user_id`."""
    query = select(User).join(UserRole).where(UserRole.role_name == "admin", User.disabled_at.is_(None))
    if excluded_user_id is not None:
        query = query.where(User.id != excluded_user_id)
    return db.session.scalar(query.order_by(User.id).limit(1))


def list_role_names() -> list[str]:
    return list(db.session.scalars(select(Role.name).where(Role.deleted_at.is_(None)).order_by(Role.name)))


def count_users_by_role() -> dict[str, int]:
    """The number of enabled users of each role, by name, including roles without any."""
    return audiences.cache_until_membership_changes("by role", _count_by_role)


def _count_by_role() -> dict[str, int]:
    """All users with a role, minus the few disabled: joining every user with their roles took nine times as long."""
    all_query = select(UserRole.role_name, func.count()).group_by(UserRole.role_name)
    disabled_query = all_query.where(UserRole.user_id.in_(audiences.select_disabled_ids()))
    all_counts, disabled_counts = (dict(map(tuple, db.session.execute(query))) for query in (all_query, disabled_query))
    return {name: all_counts.get(name, 0) - disabled_counts.get(name, 0) for name in list_role_names()}


def find_missing_roles(names: Iterable[str]) -> set[str]:
    missing_names = set(names)
    for chunk in split_into_chunks(sorted(missing_names), MAX_IN_VALUES):
        known_roles = select(Role.name).where(Role.name.in_(chunk), Role.deleted_at.is_(None))
        missing_names -= set(db.session.scalars(known_roles))
    return missing_names


def add_missing_roles(session: Session, names: Iterable[str]) -> list[str]:
    """Create those of these roles that do not exist yet; return them, by name."""
    missing_names = sorted(find_missing_roles(names))
    if missing_names:
        session.execute(insert(Role), [{"name": name} for name in missing_names])
    return missing_names


def resolve_ids(names: Iterable[int | str]) -> dict[int | str, int]:
    """User ids by these ids and usernames, for those that exist and are enabled."""
    ids_by_name: dict[int | str, int] = {}
    is_enabled = User.disabled_at.is_(None)
    for chunk in split_into_chunks([name for name in names if isinstance(name, str)], MAX_IN_VALUES):
        query = select(User.username, User.id).where(User.username.in_(chunk), is_enabled)
        ids_by_name.update(map(tuple, db.session.execute(query)))
    for chunk in split_into_chunks([name for name in names if isinstance(name, int)], MAX_IN_VALUES):
        ids_by_name.update(
            (user_id, user_id) for user_id in db.session.scalars(select(User.id).where(User.id.in_(chunk), is_enabled))
        )
    return ids_by_name


def get_names(ids: Iterable[int]) -> dict[int, str]:
    """Display names by user id."""
    return _get_values(User.name, ids)


def get_usernames(ids: Iterable[int]) -> dict[int, str]:
    """Usernames by user id, disabled users included."""
    return _get_values(User.username, ids)


def _get_values(column: InstrumentedAttribute[str], ids: Iterable[int]) -> dict[int, str]:
    values_by_id: dict[int, str] = {}
    for chunk in split_into_chunks(sorted(set(ids)), MAX_IN_VALUES):
        values_by_id.update(map(tuple, db.session.execute(select(User.id, column).where(User.id.in_(chunk)))))
    return values_by_id


def search(q: str, *, limit: int) -> list[User]:
    """Enabled users with a word beginning with each word of `q`; those whose username begins with it come first."""
    prefix = q.lower().strip()
    users = user_search.list_candidates(q, limit=limit)
    return sorted(users, key=lambda user: (not user.username.startswith(prefix), user.username))[:limit]


def bump_membership_version(session: Session) -> None:
    """Record that users or their roles change in this transaction; every such change must call it."""
    session.execute(update(MembershipVersion).values(version=secrets.token_hex(8)))


def count_all() -> int:
    return audiences.count(EveryoneAudience())


@dataclass(frozen=True, slots=True)
class UserFilters:
    """Filters of the list of users. Empty strings mean "any"; `state` is "enabled" or "disabled"."""

    q: str = ""
    role: str = ""
    state: str = ""


def list_page(filters: UserFilters, *, after: str = "", limit: int = 50) -> list[User]:
    """At most `limit` users with a username > `after`, by username."""
    query = _apply_filters(select(User), filters).where(User.username > after).order_by(User.username)
    return list(db.session.scalars(query.limit(limit)))


def count_matching(filters: UserFilters, *, max_count: int) -> int:
    """How many match; `max_count` + 1 stands for more than `max_count`."""
    matching_ids = _apply_filters(select(User.id), filters).limit(max_count + 1).subquery()
    return db.session.scalar(select(func.count()).select_from(matching_ids))


def list_open_sessions(user_id: int) -> list[UserSession]:
    """Sessions that were not ended, last used first; expired ones are included."""
    query = select(UserSession).where(UserSession.user_id == user_id, UserSession.ended_at.is_(None))
    return list(db.session.scalars(query.order_by(UserSession.seen_at.desc())))


def get_open_session(session: Session, token_hash: str) -> UserSession | None:
    """The session with this token hash, unless it has ended."""
    is_open_session = (
        UserSession.token_hash == token_hash,
        UserSession.ended_at.is_(None),
        UserSession.origin.is_(None),
    )
    return session.scalar(select(UserSession).where(*is_open_session))


def get_last_seen(user_ids: Sequence[int]) -> dict[int, datetime]:
    """When each of these users last used a session, by user id; without those who never did."""
    query = select(UserSession.user_id, func.max(UserSession.seen_at)).where(UserSession.user_id.in_(user_ids))
    return dict(map(tuple, db.session.execute(query.group_by(UserSession.user_id))))


def list_tokens(
    user_id: int | None = None, *, before: int | None = None, limit: int = 50
) -> list[tuple[ApiToken, User]]:
    """Tokens with their users, newest first; of one user, or of all."""
    query = select(ApiToken, User).join(User, User.id == ApiToken.user_id).order_by(ApiToken.id.desc()).limit(limit)
    if user_id is not None:
        query = query.where(ApiToken.user_id == user_id)
    if before is not None:
        query = query.where(ApiToken.id < before)
    return list(map(tuple, db.session.execute(query)))


def list_user_tokens(session: Session, user_id: int) -> Sequence[ApiToken]:
    """Every token of a user, ended ones included."""
    return session.scalars(select(ApiToken).where(ApiToken.user_id == user_id)).all()


def find_taken_usernames(usernames: Iterable[str]) -> set[str]:
    """Which of these are taken, by enabled or disabled users."""
    taken: set[str] = set()
    for chunk in split_into_chunks(sorted(usernames), MAX_IN_VALUES):
        taken.update(db.session.scalars(select(User.username).where(User.username.in_(chunk))))
    return taken


def insert_users(session: Session, users: Sequence[tuple[str, str, set[str]]], *, at: datetime) -> None:
    """Add users without a password, as (username, name, roles), with existing roles.

    Raises IntegrityError for a taken name.
    """
    rows = [{"username": username, "name": name, "created_at": at} for username, name, _ in users]
    ids = dict(map(tuple, session.execute(insert(User).returning(User.username, User.id), rows)))
    role_rows = [
        {"user_id": ids[username], "role_name": role} for username, _, roles in users for role in sorted(roles)
    ]
    if role_rows:
        session.execute(insert(UserRole), role_rows)
    user_search.index_users(session, [(ids[username], username, name) for username, name, _ in users])


def end_sessions(
    session: Session, user_ids: Sequence[int], *, at: datetime, kept_session_id: int | None = None
) -> list[int]:
    """End the open sessions of these users except `kept_session_id`; return the ids of the ended ones."""
    ended_ids: list[int] = []
    for chunk in split_into_chunks(sorted(user_ids), MAX_IN_VALUES):
        statement = update(UserSession).where(UserSession.user_id.in_(chunk), UserSession.ended_at.is_(None))
        if kept_session_id is not None:
            statement = statement.where(UserSession.id != kept_session_id)
        statement = statement.values(ended_at=at).returning(UserSession.id)
        ended_ids += session.scalars(statement.execution_options(synchronize_session=False))
    return sorted(ended_ids)


def get_embedded_session(user_id: int, *, origin: str, token_id: int) -> UserSession | None:
    """The newest open session of this user in the pages of `origin` that this token created."""
    query = select(UserSession).where(
        UserSession.user_id == user_id,
        UserSession.origin == origin,
        UserSession.token_id == token_id,
        UserSession.ended_at.is_(None),
    )
    return db.session.scalar(query.order_by(UserSession.id.desc()).limit(1))


def end_embedded_sessions(session: Session, token_id: int, *, at: datetime) -> set[int]:
    """End the sessions that this token created; return their user ids."""
    statement = (
        update(UserSession)
        .where(UserSession.token_id == token_id, UserSession.ended_at.is_(None))
        .values(ended_at=at)
        .returning(UserSession.user_id)
    )
    return set(session.scalars(statement.execution_options(synchronize_session=False)))


def lock_role(session: Session, name: str) -> None:
    """Only one transaction at a time passes here until it ends. Users may get and lose the role meanwhile."""
    session.execute(select(Role.name).where(Role.name == name).with_for_update(**ROW_LOCK))


def _apply_filters(query: Select, filters: UserFilters) -> Select:
    query = query.where(User.deleted_at.is_(None))
    if filters.q:
        query = query.where(user_search.matches(filters.q))
    if filters.role:
        query = query.where(exists().where(UserRole.user_id == User.id, UserRole.role_name == filters.role))
    if filters.state:
        query = query.where(User.disabled_at.is_(None) if filters.state == "enabled" else User.disabled_at.is_not(None))
    return query


def _is_storable(name: int | str) -> bool:
    return "\0" not in name and name.isprintable() if isinstance(name, str) else 0 < name < 2**63
