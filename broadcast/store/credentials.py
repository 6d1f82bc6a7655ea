"""Look up the user behind a cookie or a token. Every request and every stream needs it, so it is one prepared query."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from broadcast.base.cooperative import split_into_chunks
from broadcast.store.database import MAX_IN_VALUES
from broadcast.store.fast.prepared_query import PreparedQuery
from broadcast.store.models import ApiToken, User, UserRole, UserSession

_MAX_CACHED_ROLE_SETS = 1_000


@dataclass(frozen=True, slots=True)
class Credential:
    """A session or a token with its user, valid or not: the caller decides.

    `expires_at` and `scopes` (space-separated) are set for tokens only. `origin` is the site of an embedded session,
    `issuer` the provider that authenticated a session. `has_password`: whether the user has a local password.
    """

    id: int
    created_at: datetime
    used_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None
    scopes: str | None
    origin: str | None
    token_id: int | None
    issuer: str | None
    user_id: int
    username: str
    name: str
    disabled_at: datetime | None
    has_password: bool
    roles: frozenset[str]


_role_names = select(func.aggregate_strings(UserRole.role_name, " ")).where(UserRole.user_id == User.id)
_user_columns = (
    User.id,
    User.username,
    User.name,
    User.disabled_at,
    User.password_hash.is_not(None),
    _role_names.scalar_subquery(),
)
_session_times = (UserSession.created_at, UserSession.seen_at, UserSession.ended_at)
_session_origin = (UserSession.origin, UserSession.token_id, UserSession.issuer)
_session_query = select(UserSession.id, *_session_times, None, None, *_session_origin, *_user_columns).join_from(
    UserSession, User, User.id == UserSession.user_id
)
_session_lookup = PreparedQuery(
    _session_query.where(UserSession.token_hash == bindparam("key"), UserSession.origin.is_(None))
)
_embedded_session_lookup = PreparedQuery(
    _session_query.where(UserSession.id == bindparam("key"), UserSession.origin.is_not(None))
)
_token_times = (ApiToken.created_at, ApiToken.used_at, ApiToken.revoked_at, ApiToken.expires_at)
_token_lookup = PreparedQuery(
    select(ApiToken.id, *_token_times, ApiToken.scopes, None, None, None, *_user_columns)
    .join_from(ApiToken, User, User.id == ApiToken.user_id)
    .where(ApiToken.token_hash == bindparam("key"))
)


def find_by_session_token(token_hash: str) -> Credential | None:
    return _find(_session_lookup, token_hash)


def find_by_embedded_session(session_id: int) -> Credential | None:
    """The embedded session with this id."""
    return _find(_embedded_session_lookup, session_id)


def find_by_api_token(token_hash: str) -> Credential | None:
    return _find(_token_lookup, token_hash)


def record_use(session: Session, *, session_ids: Sequence[int], token_ids: Sequence[int], at: datetime) -> None:
    """Record that these sessions and tokens were in use at `at`.

    A row that another transaction has locked is left out: it is being ended, or another worker records the same. Two
    workers that waited for each other's rows would deadlock.
    """
    for table, column, ids in ((UserSession, "seen_at", session_ids), (ApiToken, "used_at", token_ids)):
        for chunk in split_into_chunks(ids, MAX_IN_VALUES):
            free_ids = select(table.id).where(table.id.in_(chunk)).with_for_update(skip_locked=True)
            statement = update(table).where(table.id.in_(free_ids)).values({column: at})
            session.execute(statement.execution_options(synchronize_session=False))


def _find(prepared_query: PreparedQuery, key: str | int) -> Credential | None:
    row = prepared_query.fetch_first({"key": key})
    return row and Credential(*row[:-1], _parse_roles(row[-1] or ""))


@lru_cache(_MAX_CACHED_ROLE_SETS)
def _parse_roles(names: str) -> frozenset[str]:
    """One object for all who have the same roles: thousands are remembered, and a set takes 200 bytes."""
    return frozenset(names.split())
