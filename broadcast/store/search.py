"""Full-text search in broadcasts and for users. In broadcasts with FTS5 on SQLite and a tsvector on PostgreSQL.

Both index `broadcasts.build_search_words`, the words as `domain.search_tokens` folds them, so that both find the same.
Every search word must be a prefix of a word of the message; punctuation is matched as typed.

Users are found by the beginnings of words in username and name, folded likewise. They have an indexed table of words,
the same on both databases: scanning a million names for each typed letter took seconds.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, event, false, insert, literal, or_, select, text
from sqlalchemy.orm import Session

from broadcast.domain.search_tokens import extract_literals, tokenize
from broadcast.store.database import db
from broadcast.store.models import Broadcast, User, UserSearchToken

_MAX_TOKENS, _MAX_USER_TOKENS = 12, 6  # per query
_MAX_CHARACTER = "\U0010ffff"  # sorts behind every word with the same prefix


def matches(q: str) -> ColumnElement[bool]:
    """The condition that a broadcast matches all of `q`; true for an empty text."""
    conditions = [_contains_literal(part) for part in extract_literals(q)[:_MAX_TOKENS]]
    if tokens := tokenize(q)[:_MAX_TOKENS]:
        is_sqlite = db.engine.dialect.name == "sqlite"
        conditions.append(_matches_on_sqlite(tokens) if is_sqlite else _matches_on_postgresql(tokens))
    return and_(literal(True), *conditions)


def _contains_literal(part: str) -> ColumnElement[bool]:
    """The condition that title or text contains `part` as typed. Reads every candidate row."""
    return or_(Broadcast.title.icontains(part, autoescape=True), Broadcast.content.icontains(part, autoescape=True))


def _matches_on_sqlite(tokens: list[str]) -> ColumnElement[bool]:
    matching_ids = text("SELECT rowid FROM broadcast_search WHERE broadcast_search MATCH :words")
    return Broadcast.id.in_(
        matching_ids.bindparams(words=" ".join(f'"{word}"*' for word in tokens)).columns(Broadcast.id)
    )


def _matches_on_postgresql(tokens: list[str]) -> ColumnElement[bool]:
    # the words as they are: to_tsquery would split them again by its own rules
    condition = text("array_to_tsvector(string_to_array(broadcasts.search_words, ' ')) @@ CAST(:words AS tsquery)")
    return condition.bindparams(words=" & ".join(f"'{word}':*" for word in tokens))


def _build_user_rows(users: Iterable[tuple[int, str, str]]) -> list[dict[str, Any]]:
    """Rows for users given as (user id, username, name)."""
    return [
        {"word": word, "user_id": user_id}
        for user_id, username, name in users
        for word in sorted({*tokenize(username), *tokenize(name)})
    ]


def index_users(session: Session, users: Iterable[tuple[int, str, str]]) -> None:
    """Index users that were inserted in bulk; those added through the session are indexed automatically."""
    if token_rows := _build_user_rows(users):
        session.execute(insert(UserSearchToken), token_rows)


def remove_user(session: Session, user: User) -> None:
    session.execute(delete(UserSearchToken).where(UserSearchToken.user_id == user.id))


@event.listens_for(User, "after_insert")
def _index_new_user(_mapper: Any, connection: Any, user: User) -> None:
    if token_rows := _build_user_rows([(user.id, user.username, user.name)]):
        connection.execute(insert(UserSearchToken), token_rows)


def matches_user(q: str) -> ColumnElement[bool]:
    """The condition that each word of `q` begins a word of a User; false for a text without words."""
    tokens = tokenize(q)[:_MAX_USER_TOKENS]
    conditions = (User.id.in_(select(UserSearchToken.user_id).where(_starts_with(word))) for word in tokens)
    return and_(*conditions) if tokens else false()


def list_user_candidates(q: str, *, limit: int) -> list[User]:
    """Some enabled users who match, in the order of the matching word: enough to choose `limit` of them."""
    tokens = sorted(tokenize(q)[:_MAX_USER_TOKENS], key=len)
    if not tokens:
        return []
    *other_tokens, longest_token = tokens  # the rarest, most likely: its index range is scanned
    query: Select = select(User).join(UserSearchToken, UserSearchToken.user_id == User.id)
    query = query.where(_starts_with(longest_token), User.disabled_at.is_(None), *map(matches_user, other_tokens))
    users = db.session.scalars(
        query.order_by(UserSearchToken.word, UserSearchToken.user_id).limit(limit * _MAX_USER_TOKENS)
    )
    return list(dict.fromkeys(users))


def _starts_with(word: str) -> ColumnElement[bool]:
    return and_(UserSearchToken.word >= word, UserSearchToken.word < word + _MAX_CHARACTER)
