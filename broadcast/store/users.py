"""Questions about people, roles, sessions and tokens."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, exists, func, insert, select, update
from sqlalchemy.orm import Session

from broadcast.base.cooperative import Breath
from broadcast.domain.audience import Audience, Everyone
from broadcast.domain.message import id_or_username
from broadcast.domain.preferences import Preferences
from broadcast.domain.preferences import stored as stored_preferences
from broadcast.domain.usernames import normalize
from broadcast.store import audiences, mutes, user_search
from broadcast.store.database import ROW_LOCK, db
from broadcast.store.models import (
    ApiToken,
    PeopleVersion,
    PersonIdentity,
    Role,
    User,
    UserRole,
    UserSession,
)

_CHUNK = 500  # values in one IN list; SQLite takes 32,766 in a statement


def by_id(user_id: int) -> User | None:
    return db.session.get(User, user_id)


def by_username(username: str) -> User | None:
    if "\0" in username:
        return None  # PostgreSQL has no such text, and says so with an error
    return db.session.scalar(select(User).where(User.username == normalize(username)))


def id_by_identity(session: Session, issuer: str, subject: str) -> int | None:
    """Whose account at that provider this is."""
    row = session.get(PersonIdentity, (issuer, subject))
    return row and row.user_id


def identity_at(user_id: int, issuer: str) -> PersonIdentity | None:
    """The person's account at that provider."""
    mine = (PersonIdentity.user_id == user_id, PersonIdentity.issuer == issuer)
    return db.session.scalar(select(PersonIdentity).where(*mine))


def find(name: int | str) -> User | None:
    """The enabled person with this id or username."""
    found = (
        ids_by_name([id_or_username(name.strip().lower()) if isinstance(name, str) else name])
        if _is_storable(name)
        else {}
    )
    return by_id(next(iter(found.values()))) if found else None


def preferences(user_id: int) -> Preferences:
    """What this person wants to be alerted of."""
    return stored_preferences(db.session.scalar(select(User.preferences).where(User.id == user_id)) or {})


def set_preferences(session: Session, user_id: int, wanted: Preferences) -> None:
    session.execute(
        update(User)
        .where(User.id == user_id)
        .values(preferences=wanted.as_json())
        .execution_options(synchronize_session=False)
    )
    mutes.put(session, user_id, wanted)


def first_admin(*, other_than: int | None = None) -> User | None:
    """The oldest enabled administrator, leaving `other_than` aside."""
    query = select(User).join(UserRole).where(UserRole.role_name == "admin", User.disabled_at.is_(None))
    if other_than is not None:
        query = query.where(User.id != other_than)
    return db.session.scalar(query.order_by(User.id).limit(1))


def role_names() -> list[str]:
    return list(db.session.scalars(select(Role.name).where(Role.deleted_at.is_(None)).order_by(Role.name)))


def people_by_role() -> dict[str, int]:
    """How many enabled people each role has, roles without anybody included, by name."""
    return audiences.until_people_change("by role", _count_by_role)


def _count_by_role() -> dict[str, int]:
    """All who have a role, without the few who are disabled: joining everybody with their roles took nine times as long."""
    everybody = select(UserRole.role_name, func.count()).group_by(UserRole.role_name)
    disabled = everybody.where(UserRole.user_id.in_(audiences.disabled_ids()))
    has, without = (dict(map(tuple, db.session.execute(query))) for query in (everybody, disabled))
    return {name: has.get(name, 0) - without.get(name, 0) for name in role_names()}


def missing_roles(names: Iterable[str]) -> set[str]:
    missing = set(names)
    for chunk in _chunks(sorted(missing)):
        known = select(Role.name).where(Role.name.in_(chunk), Role.deleted_at.is_(None))
        missing -= set(db.session.scalars(known))
    return missing


def add_roles(session: Session, names: Iterable[str]) -> list[str]:
    """Make those of these roles that do not exist yet; return them, by name."""
    missing = sorted(missing_roles(names))
    if missing:
        session.execute(insert(Role), [{"name": name} for name in missing])
    return missing


def ids_by_name(names: Iterable[int | str]) -> dict[int | str, int]:
    """Which of these user ids and usernames exist and are enabled, each with its user id."""
    found: dict[int | str, int] = {}
    enabled = User.disabled_at.is_(None)
    for chunk in _chunks([name for name in names if isinstance(name, str)]):
        query = select(User.username, User.id).where(User.username.in_(chunk), enabled)
        found.update(map(tuple, db.session.execute(query)))
    for chunk in _chunks([name for name in names if isinstance(name, int)]):
        found.update(
            (user_id, user_id) for user_id in db.session.scalars(select(User.id).where(User.id.in_(chunk), enabled))
        )
    return found


def names(ids: Iterable[int]) -> dict[int, str]:
    """Names to show, by user id."""
    found: dict[int, str] = {}
    for chunk in _chunks(sorted(set(ids))):
        found.update(map(tuple, db.session.execute(select(User.id, User.name).where(User.id.in_(chunk)))))
    return found


def usernames(ids: Iterable[int]) -> dict[int, str]:
    """Usernames by user id, of disabled people too."""
    found: dict[int, str] = {}
    for chunk in _chunks(sorted(set(ids))):
        found.update(map(tuple, db.session.execute(select(User.id, User.username).where(User.id.in_(chunk)))))
    return found


def search(q: str, *, limit: int) -> list[User]:
    """Enabled people with a word that begins with each word of `q`, those whose username begins with it first."""
    begins = q.lower().strip()
    found = user_search.first(q, limit=limit)
    return sorted(found, key=lambda user: (not user.username.startswith(begins), user.username))[:limit]


def count(audience: Audience) -> int:
    """How many enabled people the audience has now."""
    return audiences.count(audience)


def changed(session: Session) -> None:
    """Say that people or their roles change in this transaction; every such change must."""
    session.execute(update(PeopleVersion).values(version=secrets.token_hex(8)))


def count_all() -> int:
    return count(Everyone())


@dataclass(frozen=True, slots=True)
class Filters:
    """What narrows the list of people. Empty strings mean "any"; `state` is "enabled" or "disabled"."""

    q: str = ""
    role: str = ""
    state: str = ""


def page(filters: Filters, *, after: str = "", limit: int = 50) -> list[User]:
    """At most `limit` people with a username > `after`, by username."""
    query = _filtered(select(User), filters).where(User.username > after).order_by(User.username)
    return list(db.session.scalars(query.limit(limit)))


def count_found(filters: Filters, *, most: int) -> int:
    """How many there are; `most` + 1 stands for more than `most`, which nobody counts by hand either."""
    some = _filtered(select(User.id), filters).limit(most + 1).subquery()
    return db.session.scalar(select(func.count()).select_from(some))


def open_sessions(user_id: int) -> list[UserSession]:
    """Sessions that nobody ended, the last used first; those that grew too old are among them."""
    query = select(UserSession).where(UserSession.user_id == user_id, UserSession.ended_at.is_(None))
    return list(db.session.scalars(query.order_by(UserSession.seen_at.desc())))


def open_session(session: Session, token_hash: str) -> UserSession | None:
    """The session of a browser that has this token, unless it has ended."""
    is_it = (UserSession.token_hash == token_hash, UserSession.ended_at.is_(None), UserSession.origin.is_(None))
    return session.scalar(select(UserSession).where(*is_it))


def last_seen(user_ids: Sequence[int]) -> dict[int, datetime]:
    """When each of these people last used a session, by user id; without those who never did."""
    query = select(UserSession.user_id, func.max(UserSession.seen_at)).where(UserSession.user_id.in_(user_ids))
    return dict(map(tuple, db.session.execute(query.group_by(UserSession.user_id))))


def tokens(user_id: int | None = None, *, before: int | None = None, limit: int = 50) -> list[tuple[ApiToken, User]]:
    """Tokens with their people, the newest first; of one person, or of all."""
    query = select(ApiToken, User).join(User, User.id == ApiToken.user_id).order_by(ApiToken.id.desc()).limit(limit)
    if user_id is not None:
        query = query.where(ApiToken.user_id == user_id)
    if before is not None:
        query = query.where(ApiToken.id < before)
    return list(map(tuple, db.session.execute(query)))


def tokens_of(session: Session, user_id: int) -> Sequence[ApiToken]:
    """Every token of a person, those that ended too."""
    return session.scalars(select(ApiToken).where(ApiToken.user_id == user_id)).all()


def known_usernames(usernames: Iterable[str]) -> set[str]:
    """Which of these are taken, by enabled and disabled people alike."""
    found: set[str] = set()
    for chunk in _chunks(sorted(usernames)):
        found.update(db.session.scalars(select(User.username).where(User.username.in_(chunk))))
    return found


def insert_many(session: Session, people: Sequence[tuple[str, str, set[str]]], *, at: datetime) -> None:
    """Add people without a password, as (username, name, roles). Roles must exist. Raises IntegrityError for a taken name."""
    rows = [{"username": username, "name": name, "created_at": at} for username, name, _ in people]
    ids = dict(map(tuple, session.execute(insert(User).returning(User.username, User.id), rows)))
    given = [{"user_id": ids[username], "role_name": role} for username, _, roles in people for role in sorted(roles)]
    if given:
        session.execute(insert(UserRole), given)
    user_search.add(session, [(ids[username], username, name) for username, name, _ in people])


def end_sessions(session: Session, user_ids: Sequence[int], *, at: datetime, keep: int | None = None) -> list[int]:
    """End the open sessions of these people, but for the session `keep`; return the ids of those that ended."""
    ended: list[int] = []
    for chunk in _chunks(sorted(user_ids)):
        statement = update(UserSession).where(UserSession.user_id.in_(chunk), UserSession.ended_at.is_(None))
        if keep is not None:
            statement = statement.where(UserSession.id != keep)
        statement = statement.values(ended_at=at).returning(UserSession.id)
        ended += session.scalars(statement.execution_options(synchronize_session=False))
    return sorted(ended)


def embedded_session(user_id: int, *, origin: str, token_id: int) -> UserSession | None:
    """The newest open session of this person in the pages of `origin` that this token began."""
    query = select(UserSession).where(
        UserSession.user_id == user_id,
        UserSession.origin == origin,
        UserSession.token_id == token_id,
        UserSession.ended_at.is_(None),
    )
    return db.session.scalar(query.order_by(UserSession.id.desc()).limit(1))


def end_embedded(session: Session, token_id: int, *, at: datetime) -> set[int]:
    """End the sessions that this token began; return whose they were."""
    statement = (
        update(UserSession)
        .where(UserSession.token_id == token_id, UserSession.ended_at.is_(None))
        .values(ended_at=at)
        .returning(UserSession.user_id)
    )
    return set(session.scalars(statement.execution_options(synchronize_session=False)))


def lock_role(session: Session, name: str) -> None:
    """Let nobody else through here until this transaction ends. People may get and lose the role meanwhile."""
    session.execute(select(Role.name).where(Role.name == name).with_for_update(**ROW_LOCK))


def _filtered(query: Select, filters: Filters) -> Select:
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


def _chunks(values: list) -> Iterable[list]:
    """Lets other greenlets run between two of many."""
    breath = Breath()
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]
        breath.take()
