"""Finding people by the beginnings of their words: username and name, folded as the words of messages are.

A table of words with an index, the same on both databases: reading a million names for each letter that is typed took seconds.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, ForeignKey, Select, String, and_, delete, event, false, insert, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from broadcast.domain.search_tokens import words
from broadcast.store.database import db
from broadcast.store.models import User

_MOST_WORDS = 6  # of a question
_LAST = "\U0010ffff"  # sorts behind every word that begins like the one before it
_BYTES = String(64).with_variant(
    String(64, collation="C"), "postgresql"
)  # in the order of bytes, or ranges mean nothing


class PersonWord(db.Model):
    """One word of a person's username or name."""

    __tablename__ = "person_words"

    word: Mapped[str] = mapped_column(_BYTES, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True)


def rows(people: Iterable[tuple[int, str, str]]) -> list[dict[str, Any]]:
    """What the table holds of people, given as (user id, username, name)."""
    return [
        {"word": word, "user_id": user_id}
        for user_id, username, name in people
        for word in sorted({*words(username), *words(name)})
    ]


def add(session: Session, people: Iterable[tuple[int, str, str]]) -> None:
    """Make people findable that were inserted in bulk; one that the session adds is findable by itself."""
    if found := rows(people):
        session.execute(insert(PersonWord), found)


def replace(session: Session, user: User) -> None:
    """Make a person findable by the name they have now."""
    remove(session, user)
    add(session, [(user.id, user.username, user.name)])


def remove(session: Session, user: User) -> None:
    session.execute(delete(PersonWord).where(PersonWord.user_id == user.id))


@event.listens_for(User, "after_insert")
def _add_one(_mapper: Any, connection: Any, user: User) -> None:
    if found := rows([(user.id, user.username, user.name)]):
        connection.execute(insert(PersonWord), found)


def matches(q: str) -> ColumnElement[bool]:
    """The condition that each word of `q` begins a word of a User; false for a text without words."""
    asked = words(q)[:_MOST_WORDS]
    return and_(*(User.id.in_(select(PersonWord.user_id).where(_begins(word))) for word in asked)) if asked else false()


def first(q: str, *, limit: int) -> list[User]:
    """Some enabled people who match, in the order of the word that matched: as many as it takes to choose `limit` of them."""
    asked = sorted(words(q)[:_MOST_WORDS], key=len)
    if not asked:
        return []
    *others, longest = asked  # the rarest, most likely: its part of the index is walked
    query: Select = select(User).join(PersonWord, PersonWord.user_id == User.id)
    query = query.where(_begins(longest), User.disabled_at.is_(None), *map(matches, others))
    found = db.session.scalars(query.order_by(PersonWord.word, PersonWord.user_id).limit(limit * _MOST_WORDS))
    return list(dict.fromkeys(found))


def _begins(word: str) -> ColumnElement[bool]:
    return and_(PersonWord.word >= word, PersonWord.word < word + _LAST)
