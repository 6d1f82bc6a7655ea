"""Queries on users, roles, sessions and tokens."""

import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Select, bindparam, delete, exists, func, insert, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from broadcast.domain.audience import Audience, EveryoneAudience
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Priority, parse_id_or_username
from broadcast.domain.permissions import Permission, get_role_permissions
from broadcast.domain.preferences import Preferences, parse_stored_preferences
from broadcast.domain.usernames import normalize_username
from broadcast.store import audiences, broadcasts
from broadcast.store.database import ROW_LOCK, db, execute_in_chunks
from broadcast.store.fast.prepared_query import PreparedQuery
from broadcast.store.models import (
    ApiToken,
    Broadcast,
    Delivery,
    Digest,
    EmailAddress,
    IdempotencyKey,
    Invitation,
    LinkedIdentity,
    MembershipVersion,
    Mute,
    PushSubscription,
    Role,
    UndoStep,
    User,
    UserRole,
    UserSession,
)
from broadcast.store.search import index_users, list_user_candidates, matches_user, remove_user

FORMER_USER_NAME = "A former user"
_preferences_query = PreparedQuery(select(User.preferences).where(User.id == bindparam("user_id", type_=BigInteger)))


def get(user_id: int) -> User | None:
    return db.session.get(User, user_id)


def get_by_username(username: str) -> User | None:
    if "\0" in username:
        return None  # PostgreSQL cannot store such text and raises an error
    return db.session.scalar(select(User).where(User.username == normalize_username(username)))


def get_external_identity(user_id: int, issuer: str) -> LinkedIdentity | None:
    is_wanted = (LinkedIdentity.user_id == user_id, LinkedIdentity.issuer == issuer)
    return db.session.scalar(select(LinkedIdentity).where(*is_wanted))


def find(name: int | str) -> User | None:
    """The enabled user with this id or username."""
    if not _is_storable(name):
        return None
    resolved_ids = resolve_ids([parse_id_or_username(name.strip().lower()) if isinstance(name, str) else name])
    return get(next(iter(resolved_ids.values()))) if resolved_ids else None


def get_preferences(user_id: int) -> Preferences:
    row = _preferences_query.fetch_first({"user_id": user_id})
    return parse_stored_preferences((row and row[0]) or {})


def set_preferences(session: Session, user_id: int, preferences: Preferences) -> None:
    """Store a user's preferences, and what they mute as rows, which can be counted."""
    session.execute(
        update(User)
        .where(User.id == user_id)
        .values(preferences=preferences.to_json())
        .execution_options(synchronize_session=False)
    )
    session.execute(delete(Mute).where(Mute.user_id == user_id))
    muted = [f"category {name}" for name in preferences.muted_categories]
    muted += [f"priority {p.value}" for p in Priority if preferences.is_alert_muted(priority=p.value, category=None)]
    if muted:
        session.execute(insert(Mute), [{"user_id": user_id, "what": what} for what in muted])


def count_muted(
    audience: Audience, *, priority: str, category: str | None, mandatory_categories: Collection[str] = ()
) -> int:
    """How many enabled users of the audience have muted such a message. URGENT ones alert them all the same."""
    muted = [f"priority {priority}"]
    if category and category not in mandatory_categories:
        muted.append(f"category {category}")
    return audiences.count_matching(audience, User.id.in_(select(Mute.user_id).where(Mute.what.in_(muted))))


def get_first_admin(*, excluded_user_id: int | None = None) -> User | None:
    """The oldest enabled administrator other than `excluded_user_id`."""
    query = select(User).join(UserRole).where(UserRole.role_name == "admin", User.disabled_at.is_(None))
    if excluded_user_id is not None:
        query = query.where(User.id != excluded_user_id)
    return db.session.scalar(query.order_by(User.id).limit(1))


def has_administrator() -> bool:
    """Whether there is or was an administrator: a disabled one counts, so that disabling does not reopen setup."""
    return db.session.scalar(select(exists().where(UserRole.role_name == "admin")))


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
    names, query = set(names), select(Role.name).where(Role.deleted_at.is_(None))
    return names - {name for (name,) in execute_in_chunks(db.session, query, Role.name, names)}


def add_missing_roles(session: Session, names: Iterable[str]) -> list[str]:
    """Create those of these roles that do not exist yet; return them, by name."""
    missing_names = sorted(find_missing_roles(names))
    if missing_names:
        session.execute(insert(Role), [{"name": name} for name in missing_names])
    return missing_names


def resolve_ids(names: Iterable[int | str]) -> dict[int | str, int]:
    """User ids by these ids and usernames, for those that exist and are enabled."""
    names, query = set(names), select(User.username, User.id).where(User.disabled_at.is_(None))
    usernames = {name for name in names if isinstance(name, str)}
    ids_by_name = dict(map(tuple, execute_in_chunks(db.session, query, User.username, usernames)))
    rows = execute_in_chunks(db.session, query, User.id, names - usernames)
    return ids_by_name | {user_id: user_id for _, user_id in rows}


def get_names(ids: Iterable[int]) -> dict[int, str]:
    return _get_values(User.name, ids)


def get_usernames(ids: Iterable[int]) -> dict[int, str]:
    """Usernames by user id, disabled users included."""
    return _get_values(User.username, ids)


def _get_values(column: InstrumentedAttribute[str], ids: Iterable[int]) -> dict[int, str]:
    return dict(map(tuple, execute_in_chunks(db.session, select(User.id, column), User.id, set(ids))))


def search(q: str, *, limit: int) -> list[User]:
    """Enabled users with a word beginning with each word of `q`; those whose username begins with it come first."""
    prefix = q.lower().strip()
    users = list_user_candidates(q, limit=limit)
    return sorted(users, key=lambda user: (not user.username.startswith(prefix), user.username))[:limit]


def get_permissions(ids: Collection[int]) -> dict[int, frozenset[Permission]]:
    """What these users may do now: nothing for a disabled user, and no entry for a missing one."""
    users = db.session.scalars(select(User).where(User.id.in_(ids))) if ids else ()
    return {user.id: frozenset() if user.disabled_at else get_role_permissions(user.roles) for user in users}


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
    query = select(UserSession).where(UserSession.token_hash == token_hash, UserSession.ended_at.is_(None))
    return session.scalar(query.where(UserSession.origin.is_(None)))


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
    rows = execute_in_chunks(db.session, select(User.username), User.username, set(usernames))
    return {username for (username,) in rows}


def find_ids_by_username(usernames: Iterable[str]) -> dict[str, int]:
    """The ids of those of these users who exist, enabled or disabled."""
    query = select(User.username, User.id)
    return dict(map(tuple, execute_in_chunks(db.session, query, User.username, set(usernames))))


def insert_users(session: Session, users: Sequence[tuple[str, str, set[str]]], *, at: datetime) -> dict[str, int]:
    """Add users as (username, name, roles), without passwords, with existing roles; return the ids by username.

    Raises IntegrityError (taken).
    """
    rows = [{"username": username, "name": name, "created_at": at} for username, name, _ in users]
    ids = dict(map(tuple, session.execute(insert(User).returning(User.username, User.id), rows)))
    role_rows = [
        {"user_id": ids[username], "role_name": role} for username, _, roles in users for role in sorted(roles)
    ]
    if role_rows:
        session.execute(insert(UserRole), role_rows)
    index_users(session, [(ids[username], username, name) for username, name, _ in users])
    return ids


def rename(session: Session, user: User, name: str) -> None:
    """Rename a user, also in the user search and on their unsent broadcasts."""
    is_unsent = Broadcast.sender_id == user.id, Broadcast.seq.is_(None), Broadcast.source.is_(None)
    for broadcast in session.scalars(select(Broadcast).where(*is_unsent, Broadcast.sender_name == user.name)):
        broadcast.sender_name = name
    user.name = name
    session.flush()
    remove_user(session, user)
    index_users(session, [(user.id, user.username, user.name)])


def count_unsent_by_status(user_id: int) -> dict[str, int]:
    """The number of drafts and scheduled broadcasts of a user, by status."""
    query = select(Broadcast.status, func.count()).group_by(Broadcast.status)
    query = query.where(Broadcast.sender_id == user_id, Broadcast.status.in_([Status.DRAFT, Status.SCHEDULED]))
    return dict(map(tuple, db.session.execute(query)))


def anonymize(session: Session, user: User, *, at: datetime) -> None:
    """Remove all that is personal from the user's row, and delete what is only theirs.

    The row itself stays, for receipts, broadcasts and the audit; its username becomes available again.
    """
    _replace_username_by_id(session, user)
    for table in (
        PushSubscription,
        UserSession,
        ApiToken,
        LinkedIdentity,
        UndoStep,
        IdempotencyKey,
        Invitation,
        EmailAddress,
        Digest,
        Delivery,
    ):
        session.execute(delete(table).where(table.user_id == user.id).execution_options(synchronize_session=False))
    set_preferences(session, user.id, Preferences())
    user.username, user.name, user.password_hash = f"#{user.id}", FORMER_USER_NAME, None
    user.preferences, user.role_rows = {}, []
    user.disabled_at, user.deleted_at = user.disabled_at or at, at
    session.flush()
    remove_user(session, user)


def _replace_username_by_id(session: Session, user: User) -> None:
    """Replace the username by the id in saved audiences and drafts: an id is never reused."""
    username_pattern = re.compile(rf"(?<![^\s,;]){re.escape(user.username)}(?![^\s,;])", re.IGNORECASE)

    def replace_in_draft(typed: dict[str, Any]) -> dict[str, str]:
        return {key: username_pattern.sub(str(user.id), typed.get(key) or "") for key in ("people", "exceptPeople")}

    audiences.replace_in_saved(
        session, "SELECTED", lambda name: user.id if str(name).lower() == user.username else name
    )
    broadcasts.update_drafts_with(session, user.username, replace_in_draft)


def end_sessions(
    session: Session, user_ids: Sequence[int], *, at: datetime, kept_session_id: int | None = None
) -> list[int]:
    """End the open sessions of these users except `kept_session_id`; return the ids of the ended ones."""
    statement = update(UserSession).where(UserSession.ended_at.is_(None)).values(ended_at=at).returning(UserSession.id)
    if kept_session_id is not None:
        statement = statement.where(UserSession.id != kept_session_id)
    statement = statement.execution_options(synchronize_session=False)
    return sorted(ended_id for (ended_id,) in execute_in_chunks(session, statement, UserSession.user_id, user_ids))


def get_embedded_session(user_id: int, *, origin: str, token_id: int) -> UserSession | None:
    """The newest open session of this user in the pages of `origin` that this token created."""
    query = select(UserSession).where(UserSession.user_id == user_id, UserSession.ended_at.is_(None))
    query = query.where(UserSession.origin == origin, UserSession.token_id == token_id)
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
        query = query.where(matches_user(filters.q))
    if filters.role:
        query = query.where(exists().where(UserRole.user_id == User.id, UserRole.role_name == filters.role))
    if filters.state:
        query = query.where(User.disabled_at.is_(None) if filters.state == "enabled" else User.disabled_at.is_not(None))
    return query


def _is_storable(name: int | str) -> bool:
    return "\0" not in name and name.isprintable() if isinstance(name, str) else 0 < name < 2**63
