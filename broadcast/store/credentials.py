"""Who is behind a cookie or a token. Asked once for every request and every stream, so it is one question, made once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from broadcast.store.fast.prepared_query import Question
from broadcast.store.models import ApiToken, User, UserRole, UserSession

_CHUNK = 500  # ids in one statement


@dataclass(frozen=True, slots=True)
class Credential:
    """A session or a token with its person, whether or not it is still good: the caller decides.

    `expires_at` and `scopes` (space-separated) are a token's only; None for sessions. `origin` is the site whose pages an
    embedded session is for, `issuer` the provider that vouched for a session. `has_password`: of the person's own here.
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


_user, _session, _token = User.__table__, UserSession.__table__, ApiToken.__table__
_roles = select(func.aggregate_strings(UserRole.role_name, " ")).where(UserRole.user_id == _user.c.id).scalar_subquery()
_has_password = _user.c.password_hash.is_not(None)
_person = (_user.c.id, _user.c.username, _user.c.name, _user.c.disabled_at, _has_password, _roles)
_of_session = (_session.c.id, _session.c.created_at, _session.c.seen_at, _session.c.ended_at, None, None)
_sessions = select(*_of_session, _session.c.origin, _session.c.token_id, _session.c.issuer, *_person).join_from(
    _session, _user, _user.c.id == _session.c.user_id
)
_by_session = Question(_sessions.where(_session.c.token_hash == bindparam("key"), _session.c.origin.is_(None)))
_by_embedded = Question(_sessions.where(_session.c.id == bindparam("key"), _session.c.origin.is_not(None)))
_token_columns = (_token.c.used_at, _token.c.revoked_at, _token.c.expires_at, _token.c.scopes, None, None, None)
_by_token = Question(
    select(_token.c.id, _token.c.created_at, *_token_columns, *_person)
    .join_from(_token, _user, _user.c.id == _token.c.user_id)
    .where(_token.c.token_hash == bindparam("key"))
)


def of_session(token_hash: str) -> Credential | None:
    return _found(_by_session, token_hash)


def of_embedded(session_id: int) -> Credential | None:
    """The session with this id, if it is an embedded one."""
    return _found(_by_embedded, session_id)


def of_token(token_hash: str) -> Credential | None:
    return _found(_by_token, token_hash)


def touch(session: Session, *, sessions: Sequence[int], tokens: Sequence[int], at: datetime) -> None:
    """Note that these sessions and tokens were in use at `at`."""
    for table, column, ids in ((UserSession, "seen_at", sessions), (ApiToken, "used_at", tokens)):
        for start in range(0, len(ids), _CHUNK):
            statement = update(table).where(table.id.in_(ids[start : start + _CHUNK])).values({column: at})
            session.execute(statement.execution_options(synchronize_session=False))


def _found(question: Question, key: str | int) -> Credential | None:
    row = question.ask({"key": key})
    return row and Credential(*row[:-1], frozenset((row[-1] or "").split()))
