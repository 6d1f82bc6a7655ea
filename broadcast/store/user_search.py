"""Find users by the beginnings of words in username and name, folded like the words of messages.

An indexed table of words, the same on both databases: scanning a million names for each typed letter took seconds.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, event, false, insert, select
from sqlalchemy.orm import Session

from broadcast.domain.search_tokens import tokenize
from broadcast.store.database import db
from broadcast.store.models import User, UserSearchToken

_MAX_TOKENS = 6  # per query
_MAX_CHARACTER = "\U0010ffff"  # sorts behind every word with the same prefix


def build_rows(users: Iterable[tuple[int, str, str]]) -> list[dict[str, Any]]:
    """Rows for users given as (user id, username, name)."""
    return [
        {"word": word, "user_id": user_id}
        for user_id, username, name in users
        for word in sorted({*tokenize(username), *tokenize(name)})
    ]


def index_users(session: Session, users: Iterable[tuple[int, str, str]]) -> None:
    """Index users that were inserted in bulk; those added through the session are indexed automatically."""
    if token_rows := build_rows(users):
        session.execute(insert(UserSearchToken), token_rows)


def reindex_user(session: Session, user: User) -> None:
    """Reindex a user by their current name."""
    remove_user(session, user)
    index_users(session, [(user.id, user.username, user.name)])


def remove_user(session: Session, user: User) -> None:
    session.execute(delete(UserSearchToken).where(UserSearchToken.user_id == user.id))


@event.listens_for(User, "after_insert")
def _index_new_user(_mapper: Any, connection: Any, user: User) -> None:
    if token_rows := build_rows([(user.id, user.username, user.name)]):
        connection.execute(insert(UserSearchToken), token_rows)


def matches(q: str) -> ColumnElement[bool]:
    """The condition that each word of `q` begins a word of a User; false for a text without words."""
    tokens = tokenize(q)[:_MAX_TOKENS]
    return (
        and_(*(User.id.in_(select(UserSearchToken.user_id).where(_starts_with(word))) for word in tokens))
        if tokens
        else false()
    )


def list_candidates(q: str, *, limit: int) -> list[User]:
    """Some enabled users who match, in the order of the matching word: enough to choose `limit` of them."""
    tokens = sorted(tokenize(q)[:_MAX_TOKENS], key=len)
    if not tokens:
        return []
    *other_tokens, longest_token = tokens  # the rarest, most likely: its index range is scanned
    query: Select = select(User).join(UserSearchToken, UserSearchToken.user_id == User.id)
    query = query.where(_starts_with(longest_token), User.disabled_at.is_(None), *map(matches, other_tokens))
    users = db.session.scalars(query.order_by(UserSearchToken.word, UserSearchToken.user_id).limit(limit * _MAX_TOKENS))
    return list(dict.fromkeys(users))


def _starts_with(word: str) -> ColumnElement[bool]:
    return and_(UserSearchToken.word >= word, UserSearchToken.word < word + _MAX_CHARACTER)
